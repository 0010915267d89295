//! The real file system.
/// The real file system.
#[derive(Debug)]
pub struct DiskFileSystem;
