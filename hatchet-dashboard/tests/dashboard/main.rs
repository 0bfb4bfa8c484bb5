//! The dashboard as a browser and a program see it, on the memory backend.

mod actions;
mod api;
mod attacks;
mod bulk;
mod documents;
mod guard;
mod live;
mod load;
mod pages;
mod world;
