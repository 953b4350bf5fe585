//! Numbers and names that others rely on.

use std::collections::BTreeSet;

use dataplane_core::abi::counter::COUNTERS_MAX;
use dataplane_core::abi::{Counter, DropReason, Path};

#[test]
fn counters_have_a_number_and_a_name_each() {
    let numbers: BTreeSet<u32> = Counter::all().map(Counter::number).collect();
    let names: BTreeSet<&str> = Counter::all().map(Counter::name).collect();
    assert_eq!(numbers.len(), Counter::all().count());
    assert_eq!(names.len(), Counter::all().count());
    assert!(numbers.iter().all(|&number| number < COUNTERS_MAX));
}

#[test]
fn numbers_lead_back() {
    for path in Path::ALL {
        assert_eq!(Path::from_number(*path as u32), Some(*path));
        assert_eq!(DropReason::from_number(*path as u32), None);
    }
    for reason in DropReason::ALL {
        assert_eq!(DropReason::from_number(*reason as u32), Some(*reason));
    }
}
