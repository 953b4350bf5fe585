//! The kit on plugins that are known: those of the distribution, and one that breaks one rule at a time.

mod plugins {
    mod calibration;
    mod command_line;
    mod ground;
    mod mutants;
}
