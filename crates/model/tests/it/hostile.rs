//! Nothing that is sent brings the process down.
