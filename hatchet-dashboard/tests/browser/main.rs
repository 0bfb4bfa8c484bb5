//! The dashboard in a real browser: a headless Chromium clicks through each page and each action, over a store with runs of
//! all kinds. Whatever a test does, the browser must have no complaint and no request may leave the origin.
//!
//! It needs Chromium and its driver, of Debian the packages `chromium` and `chromium-driver`, and fails without them. It
//! takes `chromedriver` from the path, or what `CHROMEDRIVER` names, and `/usr/bin/chromium`, or what `CHROMIUM` names.

mod access;
mod attacks;
mod browser;
mod bulk;
mod buttons;
mod colours;
mod live;
mod pages;
mod site;

#[path = "../dashboard/load.rs"]
mod load;
#[allow(dead_code, reason = "these tests speak to the router through a browser, and need only some of the words")]
#[path = "../dashboard/world.rs"]
mod world;
