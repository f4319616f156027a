//! @platformatic/kafka. The scripts in `node/` do the work and the checks.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, Tool};

pub(crate) fn trials() -> Vec<Trial> {
    vec![crate::trial("node::with_platformatic::admin", "MILLSTREAM_PLATFORMATIC", |packages| {
        let broker = Broker::start();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/node/with_platformatic.js");
        // The client needs a newer Node than most systems have; its packages include one.
        let output = Tool::new(Path::new(packages).join(".bin/node"))
            .env("NODE_PATH", packages)
            .arg(script)
            .args(["admin", &broker.bootstrap()])
            .limit(Duration::from_secs(120))
            .succeed();
        assert!(output.ends_with("admin: ok\n"), "{output}");
    })]
}
