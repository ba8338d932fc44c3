//! How media is to travel, as players and servers say it.
