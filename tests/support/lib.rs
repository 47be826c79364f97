//! Shared support of the test suites.
