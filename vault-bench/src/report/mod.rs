//! Reports of what was measured: Markdown tables, and a page of HTML that needs nothing but itself.
//!
//! `book` looks records up, `costs` adds up what fills cost, `goals` holds the engine's figures against what is asked of it, [`compare`] against another
//! revision; `tables` and `markdown` write Markdown, `page` HTML with the drawings of `chart` and `curves`.
//!
//! Everything is drawn from the kept results alone, so that it can be drawn again, and on another machine.

mod book;
mod chart;
pub mod compare;
mod costs;
mod curves;
mod format;
mod goals;
mod markdown;
mod page;
mod tables;

pub use markdown::{BLOCK_BEGIN, BLOCK_END, block, markdown, with_block};
pub use page::html;
pub use tables::render;
