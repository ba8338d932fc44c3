//! Long lists in pages, so that none takes more than a browser likes.

use std::ops::Range;

use maud::{Markup, html};

/// Entries of a page.
const ENTRIES: usize = 100;

/// Which entries of a list are shown.
pub(super) struct Paging {
    number: usize,
    pages: usize,
    entries: usize,
    of_page: usize,
}

impl Paging {
    /// `wish` is what the page's address says, from 1.
    pub(super) fn new(entries: usize, wish: &str) -> Self {
        Self::by(ENTRIES, entries, wish)
    }

    /// The same with so many entries of a page.
    pub(super) fn by(of_page: usize, entries: usize, wish: &str) -> Self {
        let pages = entries.div_ceil(of_page).max(1);
        Self { number: wish.parse().unwrap_or(1).clamp(1, pages), pages, entries, of_page }
    }

    /// The page's, from 1.
    pub(super) const fn number(&self) -> usize {
        self.number
    }

    /// Their indexes.
    pub(super) fn range(&self) -> Range<usize> {
        let first = (self.number - 1) * self.of_page;
        first..(first + self.of_page).min(self.entries)
    }

    /// Of a list, what is shown.
    pub(super) fn of<'l, T>(&self, list: &'l [T]) -> &'l [T] {
        list.get(self.range()).unwrap_or_default()
    }

    /// Ways to the pages beside it.
    pub(super) fn links(&self, path: &str) -> Markup {
        html! {
            @if self.pages > 1 {
                nav.pages aria-label="Further entries" {
                    @if self.number > 1 { a href={ (path) "?page=" (self.number - 1) } rel="prev" { "Before" } }
                    span { "Page " (self.number) " of " (self.pages) }
                    @if self.number < self.pages { a href={ (path) "?page=" (self.number + 1) } rel="next" { "Further" } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_wish_is_a_page() {
        let list: Vec<_> = (0..250).collect();
        for (wish, first, count) in [("", 0, 100), ("2", 100, 100), ("3", 200, 50), ("99", 200, 50), ("0", 0, 100), ("x", 0, 100)]
        {
            let shown = Paging::new(list.len(), wish).of(&list).to_vec();
            assert_eq!((shown[0], shown.len()), (first, count), "{wish}");
        }
        assert_eq!(Paging::by(10, 25, "3").range(), 20..25);
        assert!(Paging::new(0, "7").of(&list[..0]).is_empty());
        assert!(Paging::new(3, "").links("/x").into_string().is_empty());
    }
}
