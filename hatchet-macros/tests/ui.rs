//! What `#[workflow]`, `#[step]` and `#[on_failure]` accept, what they make of it, and what a user is told otherwise.
//!
//! The messages are those of the compiler in use; after a change that is meant, `TRYBUILD=overwrite` writes them anew.

#[test]
fn what_is_right_compiles_and_what_is_wrong_is_explained() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
