//! Plug-ins that are part of the program: no deadline, every other limit, and other versions beside them.

use crate::guests::Guest;
use crate::support::{call, engine};
use millstream_stage::{Fault, Kind, Library, Origin, Stage, StageSpec, Trust};

const NAME: &str = "good-filter";

/// Returns a guest that is busy for 400 million turns of a loop in every call, about 100 ms.
fn busy() -> Guest {
    let busy = "(func $busy (local $turn i32)
        (loop $more
          (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
          (br_if $more (i32.lt_u (local.get $turn) (i32.const 400000000)))))";
    Guest::filter().hook("module", busy).hook_with_rows("filter", "(call $busy)")
}

fn own(guest: &Guest) -> Stage {
    let plugin = engine().load_own(guest.build().leak()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(plugin.trust(), Trust::Own);
    Stage::new(plugin, "{}").unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn only_embedded_plug_ins_have_no_deadline() {
    call(&own(&busy())).expect("a call that takes its time");
    let pushed = engine().load(&busy().build()).expect("a plug-in");
    assert_eq!(pushed.trust(), Trust::Foreign);
    let error = call(&Stage::new(pushed, "{}").expect("a stage")).expect_err("the same from elsewhere");
    assert!(matches!(error.fault, Fault::Deadline { .. }), "{error}");
}

#[test]
fn the_other_limits_apply_to_them_too() {
    let fault = |guest: &Guest| call(&own(guest)).expect_err("over a limit").fault;
    let dive = "(func $dive (result i32) (i32.add (call $dive) (i32.const 1)))";
    let deep = Guest::filter().hook("module", dive).hook_with_rows("filter", "(drop (call $dive))");
    assert!(matches!(fault(&deep), Fault::Stack { limit_bytes, .. } if limit_bytes == 256 << 10));
    let greedy = "(loop $more (drop (call $allocate (i32.const 65536))) (br $more))";
    let greedy = Guest::filter().hook_with_rows("filter", greedy);
    assert!(matches!(fault(&greedy), Fault::Memory { limit_bytes, .. } if limit_bytes == 16 << 20));
    let broken = Guest::filter().hook_with_rows("filter", "unreachable");
    assert!(matches!(fault(&broken), Fault::Trap { .. }));
}

#[test]
fn a_stage_goes_from_it_to_a_pushed_version_and_back() {
    let library = Library::new(engine());
    library.add_embedded(NAME, false, || busy().build().leak());
    let spec = StageSpec::parse(NAME).expect("a name");
    let stage = library.resolve(&spec, Kind::Filter).expect("a stage");
    assert_eq!(stage.plugin().trust(), Trust::Own);
    call(&stage).expect("the program's own");
    library.publish(&Guest::filter().version("2.0.0").build()).expect("a version");
    assert_eq!((stage.plugin().trust(), stage.stats().version.as_str()), (Trust::Foreign, "2.0.0"));
    call(&stage).expect("the pushed version");
    library.publish(&busy().version("3.0.0").build()).expect("a version");
    let error = call(&stage).expect_err("a deadline that is passed");
    assert!(matches!(error.fault, Fault::Deadline { .. }), "{error}");
    let embedded = library.version(NAME, 0).expect("the program's own");
    library.prepare(&embedded, Origin::Embedded).expect("it serves").commit();
    assert_eq!(stage.plugin().trust(), Trust::Own);
    call(&stage).expect("the program's own again");
}
