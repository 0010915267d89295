//! The read path.
//!
//! A point read ([`get`]) asks the memtables and then the runs, newest first, until one decides. A scan
//! ([`scan`]) merges all of them ([`merge`], over [`level`] cursors) and decides key by key. Both leave
//! the decision to [`visible`], the one place that knows what a reader may see. What a scan steps over because it was deleted is [`deleted`]'s.

mod deleted;
pub(crate) mod get;
pub(crate) mod level;
pub(crate) mod merge;
pub(crate) mod presence;
pub(crate) mod scan;
pub(crate) mod visible;
