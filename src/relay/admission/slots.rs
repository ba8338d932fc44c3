//! How many of something there may be, in all and for one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::address::limit_key;

/// Counts connections, or what else is taken, in all and by address (IPv6: one /64).
#[derive(Debug)]
pub struct Slots {
    most: usize,
    most_per_address: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One that counts until it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
}

impl Slots {
    /// All are free.
    pub fn new(most: usize, most_per_address: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_address, taken: Mutex::default() })
    }

    /// A slot, if one is free for the address.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let address = limit_key(address);
        let mut taken = self.lock();
        let (all, of_address) = (taken.values().sum::<usize>(), taken.get(&address).copied().unwrap_or_default());
        if all >= self.most || of_address >= self.most_per_address {
            return None;
        }
        taken.insert(address, of_address + 1);
        Some(Slot { slots: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_network_and_in_all() {
        let slots = Slots::new(3, 2);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = slots.take(address("2001:db8::1")).unwrap();
        let _second = slots.take(address("2001:db8::2")).unwrap();
        assert!(slots.take(address("2001:db8::3")).is_none());
        let _third = slots.take(address("192.0.2.1")).unwrap();
        assert!(slots.take(address("192.0.2.2")).is_none());
        drop(first);
        assert!(slots.take(address("192.0.2.2")).is_some());
        assert_eq!(slots.lock().len(), 2);
    }
}
