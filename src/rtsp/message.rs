//! Requests, responses and interleaved frames on one TCP connection, read and written.
