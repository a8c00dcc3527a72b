//! The peer as a program: `flusso-cli` with its sink that writes to standard output.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use speed::process::peak_kib;
use speed::{Contestant, Outcome, Scenario};

use crate::postgres_to_file::{self, Follower, Following, Shop};

/// This version of it, where it is installed: in `target/flusso` of this workspace, where `benches/compare` puts it.
#[derive(Debug, Clone, Copy)]
pub struct FlussoCli;

const ITEMS: &str = "version: 1
table: items
primary_key: id
fields:
  - long: id
    required: true
  - text: name
    required: false
  - integer: price
    required: false
  - boolean: sold
    required: false
";

const USERS: &str = "version: 1
table: users
primary_key: id
fields:
  - long: id
    required: true
  - text: name
    required: false
  - has_many: orders
    table: orders
    foreign_key: user_id
    primary_key: id
    order_by:
      - { column: id, direction: asc }
    fields:
      - long: id
        required: true
      - integer: amount
        required: false
";

impl Contestant for FlussoCli {
    fn name(&self) -> &'static str {
        "flusso-cli 0.15.1"
    }

    fn rounds(&self, _scenario: &Scenario, wanted: usize) -> usize {
        if program().exists() { wanted } else { 0 }
    }

    fn run(&self, scenario: &Scenario) -> Outcome {
        postgres_to_file::run(self, scenario)
    }
}

fn program() -> PathBuf {
    std::env::var_os("FLUSSO").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/target/flusso/bin/flusso").into(),
        PathBuf::from,
    )
}

impl Follower for FlussoCli {
    fn follow(&self, shop: &Shop, with_rows: bool) -> Box<dyn Following> {
        let (name, schema) = if shop.has_orders { ("users", USERS) } else { ("items", ITEMS) };
        let directory = shop.directory.path();
        let url = shop.url();
        let config = format!(
            "[source]\ntype = \"postgres\"\nconnection_url = \"{url}\"\n\n[sinks.file]\ntype = \"stdout\"\n\n\
             [[index]]\nname = \"{name}\"\nschema = \"{name}.schema.yml\"\nenabled = true\n"
        );
        std::fs::write(directory.join("flusso.toml"), config).expect("a file");
        std::fs::write(directory.join(format!("{name}.schema.yml")), schema).expect("a file");
        let output = File::options().append(true).open(shop.file()).expect("a file");
        let log = File::options().create(true).append(true).open(directory.join("log")).expect("a file");
        let mut command = Command::new(program());
        command.current_dir(directory).env("DATABASE_URL", url).env("RUST_LOG", "warn");
        command.args(["run", "--config", "flusso.toml"]);
        if !with_rows {
            command.arg("--skip-backfill");
        }
        let child = command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().expect("it starts");
        Box::new(Program(child))
    }
}

/// A process that is ended when this is dropped.
struct Program(Child);

impl Following for Program {
    fn stop(self: Box<Self>) -> Option<u64> {
        Some(peak_kib(&self.0.id().to_string()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
