//! What a step does durably besides children: recorded calls, timers, the time, random numbers, and signals.

mod blocking;
mod calls;
mod signals;
mod timers;
