//! The frame of all pages.

use maud::{DOCTYPE, Markup, html};

use super::{
    Site,
    text::{nothing, said},
};
use crate::routes::events::Live;

const SECTIONS: [(&str, &str); 6] = [
    ("/", "Overview"),
    ("/runs", "Runs"),
    ("/attention", "Attention"),
    ("/queues", "Queues"),
    ("/workers", "Workers"),
    ("/workflows", "Workflows"),
];

impl Site {
    /// A page. After the events of `live` it shows what is new.
    pub(crate) fn page(&self, title: &str, section: &str, live: Option<&Live>, body: &Markup) -> Markup {
        let options = &self.app.options;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (said(title)) " – " (said(&options.title)) }
                    link rel="stylesheet" href=(self.to("/assets/style.css"));
                    link rel="icon" href="data:,";
                    script src=(self.to("/assets/script.js")) defer {}
                }
                body {
                    header {
                        a .title href=(self.to("/")) { (said(&options.title)) }
                        nav aria-label="Pages" {
                            @for (path, name) in SECTIONS {
                                a href=(self.to(path)) aria-current=[(section == path).then_some("page")] { (name) }
                            }
                        }
                        span .spacer {}
                        span #live .quiet {}
                        @if options.read_only { span .quiet { "read-only" } }
                        (self.sign_out())
                    }
                    main data-live=[live.map(|live| self.to(&live.path))] data-mark=[live.map(|live| &live.mark)] { (body) }
                    footer { "Times are in UTC. " a href=(self.to("/api/v1/openapi.json")) { "API" } }
                }
            }
        }
    }

    fn sign_out(&self) -> Markup {
        if self.app.options.token.is_none() {
            return nothing();
        }
        html! { form method="post" action=(self.to("/logout")) { button .plain { "Sign out" } } }
    }
}
