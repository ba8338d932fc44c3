use super::*;

fn block(number: u64, len: usize) -> Result<Arc<Block>, ReadError> {
    Ok(Arc::new(Block::new(number, 100, vec![0; len].into_boxed_slice())))
}

fn ignored() -> Wake {
    Box::new(|_| ())
}

fn is_here(cache: &BlockCache, key: Key) -> bool {
    cache.shard(key).slots.contains_key(&key)
}

#[test]
fn the_least_recently_used_goes() {
    let cache = BlockCache::new(1000);
    for number in 0..5 {
        assert!(cache.want((1, number)) && cache.begin((1, number)));
        cache.finish((1, number), &block(number, 200));
    }
    assert!(matches!(cache.ask((1, 0), ignored), Asked::Here(_)), "used again");
    cache.finish((2, 0), &block(0, 300));
    assert_eq!(cache.bytes(), 900);
    assert_eq!([0, 1, 2, 3, 4].map(|number| is_here(&cache, (1, number))), [true, false, false, true, true]);
    assert!(is_here(&cache, (2, 0)));
    cache.finish((2, 1), &block(1, 1100));
    assert!(cache.bytes() <= 1000 && !is_here(&cache, (2, 1)), "one that is too long does not stay");
}

#[test]
fn the_bound_holds_over_many_files() {
    let cache = BlockCache::new(100_000);
    for number in 0..5000_u64 {
        let key = (u128::from(number % 7), number);
        assert!(matches!(cache.ask(key, ignored), Asked::First));
        assert!(cache.begin(key) && !cache.begin(key));
        cache.finish(key, &block(number, usize::try_from(100 + number % 50 * 100).unwrap()));
        assert!(cache.bytes() <= 100_000);
    }
    assert!(cache.bytes() > 90_000);
    cache.forget(3);
    let shard = cache.shard((0, 0));
    assert!(shard.slots.keys().all(|key| key.0 != 3) && shard.order.values().all(|key| key.0 != 3));
    let sum: usize = shard.slots.values().map(|slot| if let Slot::Here { block, .. } = slot { block.size() } else { 0 }).sum();
    assert_eq!((shard.bytes, shard.order.len()), (sum, shard.slots.len()));
}

#[test]
fn large_caches_have_several_locks() {
    let cache = BlockCache::new(256 << 20);
    assert_eq!((cache.shards.len(), cache.shard_bytes), (16, 16 << 20));
    assert_eq!(BlockCache::new(0).shards.len(), 1);
}

#[test]
fn one_reads_for_all_who_ask() {
    let cache = BlockCache::new(1000);
    let (sender, told) = mpsc::channel();
    let key = (1, 1);
    for asker in 0..4 {
        let sender = sender.clone();
        let asked = cache.ask(key, || {
            Box::new(move |result: Result<Arc<Block>, _>| sender.send((asker, result.map(|block| block.first()))).unwrap())
        });
        assert_eq!(matches!(asked, Asked::First), asker == 0);
    }
    assert!(matches!(cache.claim(key), Claim::Read), "a thread that reads takes it over");
    assert!(!cache.begin(key), "so that it is no longer in the queue");
    let Claim::Waits(answer) = cache.claim(key) else { panic!("the second waits for the first") };
    cache.finish(key, &block(7, 100));
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [(0, Ok(7)), (1, Ok(7)), (2, Ok(7)), (3, Ok(7))]);
    assert_eq!(answer.try_recv().unwrap().map(|block| block.first()), Ok(7));
    assert!(matches!(cache.claim(key), Claim::Here(_)));
}

#[test]
fn a_failure_is_told_and_forgotten() {
    let cache = BlockCache::new(1000);
    let (sender, told) = mpsc::channel();
    cache.ask((1, 1), || Box::new(move |result| sender.send(result).unwrap()));
    assert!(cache.begin((1, 1)));
    cache.finish((1, 1), &Err(ReadError::Vanished));
    assert_eq!(told.try_recv(), Ok(Err(ReadError::Vanished)));
    assert_eq!((is_here(&cache, (1, 1)), cache.bytes()), (false, 0));
    assert!(matches!(cache.ask((1, 1), ignored), Asked::First), "the next asker has it tried again");
}

#[test]
fn a_panic_of_one_reaches_the_others() {
    let cache = BlockCache::new(1000);
    let (sender, told) = mpsc::channel();
    cache.ask((1, 1), || Box::new(|_| panic!("on purpose")));
    cache.ask((1, 1), || Box::new(move |result| sender.send(result.is_ok()).unwrap()));
    cache.finish((1, 1), &block(1, 100));
    assert_eq!(told.try_recv(), Ok(true));
}
