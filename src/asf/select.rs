//! stub
#![allow(missing_docs)]
use super::*;
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Selection {
    pub streams: StreamSet,
    pub thinned: StreamSet,
}
impl Selection {
    pub const fn all(streams: StreamSet) -> Self {
        Self { streams, thinned: StreamSet::EMPTY }
    }
}
#[derive(Debug)]
pub struct Selector;
pub enum Kept {
    Nothing,
    Whole,
    Rewritten,
}
impl Selector {
    pub fn new(_: StreamSet, _: StreamSet, _: Selection) -> Self {
        Self
    }
    pub fn switch(&mut self, _: Selection) {}
    pub fn packet(&mut self, _: &[u8], _: &mut Vec<u8>) -> Result<Kept, PacketError> {
        todo!()
    }
}
