//! A file system in memory.
/// A file system in memory.
#[derive(Debug)]
pub struct MemoryFileSystem;
/// Which unsynced pieces survive.
#[derive(Debug)]
pub struct CrashPolicy;
/// A fault to inject.
#[derive(Debug)]
pub struct Fault;
/// What kind.
#[derive(Debug)]
pub struct FaultKind;
/// Of which operation.
#[derive(Debug)]
pub struct OperationClass;
