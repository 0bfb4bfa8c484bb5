//! The dashboard as a browser and a program see it, on the memory backend. With `DASHBOARD_REDIS=redis://host:port`, of an
//! empty server, on that.

mod actions;
mod api;
mod attacks;
mod audit;
mod bulk;
mod documents;
mod grafana;
mod guard;
mod live;
mod load;
mod pages;
mod pauses;
mod world;
