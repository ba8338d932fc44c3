//! Asks before something is done that nobody can undo: a page of its own, so that it works without a script, and what was meant
//! stands still on it while rows of the list before it come and go.

use axum::response::Response;
use maud::html;

use super::guard::Visitor;
use super::layout::{form_token, page};

/// What is asked.
pub(super) struct Question<'q> {
    /// Where it came from: the path of a page in the bar, with a query if need be. Whoever does not mean it goes back there.
    pub(super) place: &'q str,
    /// The question.
    pub(super) title: &'q str,
    /// What comes of it.
    pub(super) outcome: &'q str,
    /// Whom or what it meets: names and values.
    pub(super) facts: &'q [(&'q str, String)],
    /// Where the form goes that does it.
    pub(super) action: &'q str,
    /// What that form says beside its token: a name and its value.
    pub(super) field: Option<(&'q str, &'q str)>,
    /// The word on its button.
    pub(super) button: &'q str,
}

impl Question<'_> {
    /// The page that asks.
    pub(super) fn page(&self, visitor: &Visitor) -> Response {
        let body = html! {
            p.lead { (self.outcome) }
            dl.facts-list { @for (name, value) in self.facts { div { dt { (name) } dd { (value) } } } }
            form.standing method="post" action=(self.action) {
                (form_token(visitor))
                @if let Some((name, value)) = self.field { input type="hidden" name=(name) value=(value); }
                button.danger type="submit" { (self.button) }
                a href=(self.place) { "Leave it as it is" }
            }
        };
        page(visitor, self.place.split('?').next().unwrap_or_default(), self.title, &body)
    }
}
