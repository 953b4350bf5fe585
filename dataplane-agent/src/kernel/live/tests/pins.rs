//! Programs, maps and links under their pins.

use super::*;

#[test]
fn removed_pins_of_programs_and_maps_come_back() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        let ids = kernel.program_ids().unwrap();
        run(&format!("rm {0}/programs/* {0}/maps/*", bpffs.display()));
        assert_eq!(observe(&mut kernel).await, wanted());
        drop(kernel);
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        assert_eq!(kernel.program_ids().unwrap(), ids);
    });
}

#[test]
fn a_restart_takes_over_without_touching_a_program() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        let (programs, links) = (kernel.program_ids().unwrap(), link_ids(bpffs));
        drop(kernel);
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        assert_eq!(kernel.program_ids().unwrap(), programs);
        assert_eq!(link_ids(bpffs), links);
        let mut state = observe(&mut kernel).await;
        assert_ne!(state.nft, wanted().nft, "the table is put once after each start");
        state.nft = wanted().nft;
        assert_eq!(state, wanted());
    });
}

/// With a program at the ingress hook of `pod0`.
async fn node_with_pod(bpffs: &Path) -> LiveKernel {
    let mut kernel = node(bpffs).await;
    run("ip link add pod0 type veth peer pod0p");
    let attach = Action::Attach {
        interface: "pod0".to_owned(),
        hook: LinkHook::Ingress,
        program: PROGRAM_TO_POD.to_owned(),
    };
    kernel.apply(&attach).await.unwrap();
    kernel
}

#[test]
fn another_program_is_exchanged_in_its_pin_and_its_links() {
    isolated(async |bpffs| {
        let mut kernel = node_with_pod(bpffs).await;
        let links = link_ids(bpffs);
        let before = kernel.program_ids().unwrap();
        drop(kernel);
        // As an agent of another version would have left it: other code under the pin's name.
        let pins = Pins(bpffs.to_owned());
        fs::rename(pins.program(PROGRAM_TO_POD), pins.program(PROGRAM_FROM_POD)).unwrap();
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        let after = kernel.program_ids().unwrap();
        assert_ne!(after[PROGRAM_FROM_POD], before[PROGRAM_TO_POD]);
        assert_eq!(after[PROGRAM_FROM_NET], before[PROGRAM_FROM_NET]);
        assert_eq!(link_ids(bpffs), links, "links are kept, only their programs change");
        let key = ("pod0".to_owned(), LinkHook::Ingress);
        assert_eq!(observe(&mut kernel).await.links[&key], PROGRAM_FROM_POD);
        let names: Vec<_> = fs::read_dir(bpffs.join("programs")).unwrap().collect();
        assert_eq!(names.len(), 5);
    });
}

#[test]
fn an_exchange_that_was_cut_short_is_finished() {
    isolated(async |bpffs| {
        let kernel = node_with_pod(bpffs).await;
        let links = link_ids(bpffs);
        drop(kernel);
        // The links had been moved to the new program, but its pin not yet renamed.
        let pins = Pins(bpffs.to_owned());
        let half = bpffs.join("programs").join(format!("{PROGRAM_FROM_POD}_new"));
        fs::rename(pins.program(PROGRAM_TO_POD), &half).unwrap();
        let pin = pins.link("pod0", Hook::Ingress);
        fs::rename(&pin, format!("{}-removing", pin.display())).unwrap();
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        assert!(!half.exists());
        assert_eq!(link_ids(bpffs), links);
        let key = ("pod0".to_owned(), LinkHook::Ingress);
        assert_eq!(observe(&mut kernel).await.links[&key], PROGRAM_FROM_POD);
    });
}

#[test]
fn a_link_of_a_removed_interface_is_exchanged_or_dropped() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        run("ip link del up0.5");
        let state = observe(&mut kernel).await;
        let key = ("up0_5".to_owned(), LinkHook::Ingress);
        assert_eq!(state.links[&key], "", "the pin is there, but attached to nothing");
        let detach = Action::Detach { interface: key.0.clone(), hook: key.1 };
        kernel.apply(&detach).await.unwrap();
        assert!(!observe(&mut kernel).await.links.contains_key(&key));
    });
}

#[test]
fn a_new_link_under_an_old_name_is_not_detached() {
    isolated(async |bpffs| {
        let mut kernel = node(bpffs).await;
        run("ip link del up0.5");
        observe(&mut kernel).await;
        // Somebody else, such as the plugin, makes it anew before the agent acts on what it saw.
        run("ip link add up0.5 type veth peer up0.5p");
        let mut other = LiveKernel::open(bpffs, true).unwrap();
        let attach = Action::Attach {
            interface: "up0.5".to_owned(),
            hook: LinkHook::Ingress,
            program: PROGRAM_FROM_NET.to_owned(),
        };
        other.apply(&attach).await.unwrap();
        let links = link_ids(bpffs);
        let detach = Action::Detach { interface: "up0_5".to_owned(), hook: LinkHook::Ingress };
        kernel.apply(&detach).await.unwrap();
        assert_eq!(link_ids(bpffs), links);
    });
}

#[test]
fn maps_of_another_version_are_refused() {
    isolated(async |bpffs| {
        let mut kernel = LiveKernel::open(bpffs, true).unwrap();
        let other = Config { abi_version: ABI_VERSION + 1, ..config() };
        kernel.apply(&Action::PutConfig(other)).await.unwrap();
        drop(kernel);
        // One that this version does not have.
        let pin = bpffs.join("maps/pw_flows");
        run(&format!(
            "bpftool map create {} type hash key 4 value 4 entries 1 name x",
            pin.display()
        ));
        let error = LiveKernel::open(bpffs, true).err().unwrap().to_string();
        assert!(error.contains(MAP_CONFIG) && error.contains("version"), "{error}");
    });
}

#[test]
fn maps_of_another_layout_are_refused() {
    isolated(async |bpffs| {
        let maps = bpffs.join("maps");
        fs::create_dir_all(&maps).unwrap();
        run(&format!(
            "bpftool map create {} type hash key 16 value 32 entries 100 name {MAP_PODS}",
            maps.join(MAP_PODS).display()
        ));
        let error = LiveKernel::open(bpffs, true).err().unwrap().to_string();
        assert!(error.contains(MAP_PODS) && error.contains("maximum of entries 100"), "{error}");
        assert!(!bpffs.join("maps").join(MAP_CONFIG).exists(), "nothing is made before the check");
    });
}

#[test]
fn foreign_pins_are_named() {
    isolated(async |bpffs| {
        drop(LiveKernel::open(bpffs, true).unwrap());
        let make = "type hash key 4 value 4 entries 1 name foreign";
        for place in ["maps/foreign", "links/foreign", "links/eth0-ingress", "foreign"] {
            let path = bpffs.join(place);
            run(&format!("bpftool map create {} {make}", path.display()));
            let error = LiveKernel::open(bpffs, true).err().unwrap().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            fs::remove_file(path).unwrap();
        }
        let pin = bpffs.join("programs").join(PROGRAM_FROM_POD);
        fs::remove_file(&pin).unwrap();
        run(&format!("bpftool map create {} {make}", pin.display()));
        let error = LiveKernel::open(bpffs, true).err().unwrap().to_string();
        assert!(error.contains(pin.to_str().unwrap()), "{error}");
    });
}

#[test]
fn a_bpffs_of_a_private_mount_namespace_is_refused() {
    isolated(async |bpffs| {
        let error = preflight::preflight(bpffs).unwrap_err().to_string();
        assert!(error.contains("would vanish"), "{error}");
    });
}
