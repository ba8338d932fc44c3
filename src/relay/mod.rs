//! Publishing points, their windows and sources, and who may watch: no socket, no protocol, no clock.
//!
//! A source publishes into a [`Point`]; every shard gets the same [`Batch`]es through its [`ShardPort`] and keeps
//! them in [`Window`]s of its own, so that viewers never wait for a lock of another thread.

pub mod admission;
mod batch;
mod catalog;
mod counted;
mod created;
mod delivery;
mod drops;
mod faults;
mod ids;
mod join_points;
mod lending;
mod point;
mod publish;
mod recutting;
mod registry;
mod stand_in;
mod stations;
#[cfg(test)]
mod testing;
mod timeline;
mod window;

pub use admission::Admission;
pub use batch::{Batch, BatchPacket, Generation};
pub use created::CreateRefusal;
pub use delivery::{Delivery, PointId, ShardPort};
pub use faults::Fault;
pub use ids::Vacancy;
pub use join_points::JoinPoints;
pub use lending::{LOANS_PER_FOLDER, Loan};
pub use point::{Point, SourceHealth, Watch};
pub use publish::{Accepted, PublishError, PublishRefusal, Publisher, PublisherId};
pub use registry::{PointChanges, Relay};
pub use window::{Spot, Window};
