//! Many threads on a real file system for a long time: nothing locks up, grows, leaks or goes wrong.
