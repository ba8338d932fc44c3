//! Who may sign in, and who has.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use maud::html;

use super::query;
use crate::console::Console;
use crate::console::form::Form;
use crate::console::guard::{Visitor, now};
use crate::console::layout::{Refused, form_token, notice, page, see_other};
use crate::console::paging::Paging;
use crate::console::words;

/// `GET /users`
pub(in crate::console) async fn users(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
) -> Response {
    let query = query(&uri);
    let accounts = console.plane.accounts();
    let signed_in = console.plane.signed_in(now());
    let users: Vec<_> = accounts.iter().collect();
    let paging = Paging::new(users.len(), query.get("page"));
    let file = console.plane.settings.control.users_file.as_deref();
    let file = file.map_or_else(|| "/etc/wmrelay/operators".into(), std::path::Path::to_string_lossy);
    let body = html! {
        (notice(query.get("done")))
        table.stack {
            thead { tr {
                th scope="col" { "Name" } th scope="col" { "Role" } th scope="col" { "Signed in" }
                th scope="col" { span.aside { "What to do" } }
            } }
            tbody {
                @for (name, account) in paging.of(&users) {
                    @let times = signed_in.get(*name).copied().unwrap_or(0);
                    tr {
                        th scope="row" { (name) @if *name == visitor.caller.user { " " span.small { "(you)" } } }
                        td data-label="Role" { (account.role) }
                        td data-label="Signed in" { @if times == 0 { "no" } @else { (words::count(times as u64, "time", "times")) } }
                        td.act {
                            @if times > 0 {
                                form method="post" action="/users/sign-out" {
                                    (form_token(&visitor))
                                    input type="hidden" name="user" value=(name);
                                    button.danger type="submit" { "Sign out" span.aside { " " (name) } }
                                }
                            }
                        }
                    }
                }
            }
        }
        (paging.links("/users"))
        h2 { "To add one, or to change a password" }
        p { "On the machine of the daemon; the file is read again by itself. Roles are viewer, publisher and operator, each of which may do "
            "what the one before may." }
        pre { "wmrelay passwd --role ROLE " (file) " NAME\nwmrelay passwd " (file) " NAME    # another password, the same role" }
        p { "To take one away, delete the line of that name in the file." }
    };
    page(&visitor, "/users", "Users", &body)
}

/// `POST /users/sign-out`
pub(in crate::console) async fn sign_out(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Extension(form): Extension<Form>,
) -> Response {
    let user = form.raw("user");
    if console.plane.accounts().get(user).is_none() {
        return Refused::new(StatusCode::NOT_FOUND, "There is no such user.").shown(Some(&visitor));
    }
    console.plane.sign_out_user(user);
    tracing::info!(user, by = visitor.caller.user, "a user was signed out by an operator");
    see_other("/users?done=signed-out")
}
