//! The engine, through the public interface, on the memory backend in virtual time.

mod smoke;
