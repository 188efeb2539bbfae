//! The Docker driver.
