//! Servers that go away, passwords, and encryption.

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use syncline::Position;
use syncline::connectors::postgres::{IndexDefinition, PostgresCapture, PostgresDocuments, Server, Tls};
use syncline::error::FaultKind;
use syncline::ports::{ChangeCapture, DocumentBuilder};

use super::capture::reopened;
use super::world::{World, fault, keys, opened, table, told, transaction};

const BOOKS: &str = "CREATE TABLE books(id int PRIMARY KEY, title text)";

#[tokio::test]
async fn b8_a_server_that_stops_or_crashes_is_waited_for_and_nothing_is_lost() {
    let Some(world) = World::alone("", BOOKS) else { return };
    let sql = "SELECT id, jsonb_build_object('title', title) FROM books WHERE id = ANY($1)";
    let definition = IndexDefinition::new("books", "books", sql).unwrap();
    let documents = PostgresDocuments::open(&world.server(), [definition]).await.unwrap();
    let capture = world.capture(&["books"]);
    let mut stream = opened(&capture).await;
    let name = stream.stream.clone();
    let id = syncline::document::DocumentId::new("books".parse().unwrap(), 1);
    for (round, signal) in ["INT", "QUIT", "KILL"].into_iter().enumerate() {
        let (first, second) = (2 * round, 2 * round + 1);
        world.run(&format!("INSERT INTO books VALUES ({first}, 'confirmed')"));
        let position = until(&mut stream, first).await;
        capture.confirm(&stream.stream, position).await.unwrap();
        world.run(&format!("CHECKPOINT; INSERT INTO books VALUES ({second}, 'not confirmed')"));
        until(&mut stream, second).await;
        documents.build(&id).await.unwrap();
        let down = tokio::task::spawn_blocking({
            let cluster = std::sync::Arc::clone(&world.cluster);
            move || cluster.down(signal)
        });
        let told = match signal {
            // A clean stop waits until everything was confirmed, as PostgreSQL does for every standby.
            "INT" => confirming(&capture, &mut stream).await,
            _ => fault(&mut stream.changes).await,
        };
        assert_eq!(told.kind(), FaultKind::Transient, "{signal}: {told}");
        down.await.unwrap();
        for fault in [
            capture.open().await.unwrap_err(),
            capture.lag().await.unwrap_err(),
            capture.confirm(&name, Position(position.0 + 1)).await.unwrap_err(),
            documents.build(&id).await.unwrap_err(),
        ] {
            assert_eq!(fault.kind(), FaultKind::Transient, "{signal}: {fault}");
        }
        world.cluster.up();
        stream = reopened(&capture).await;
        assert_eq!(stream.stream, name, "{signal}: the slot is still there");
        if signal != "INT" {
            until(&mut stream, second).await;
        }
        documents.build(&id).await.unwrap();
    }
    assert_eq!(keys(&capture, &table("books"), None).await.len(), 6);
}

/// Reads on to the change of this row, and the position behind it. A server that was restarted may have forgotten a
/// position that was confirmed just before, and gives again what came after the one before.
async fn until(stream: &mut syncline::Opened, id: usize) -> syncline::Position {
    let wanted = syncline::Key::from(id as i64);
    loop {
        let (changes, position) = transaction(&mut stream.changes).await;
        if changes[0].key == wanted {
            return position;
        }
    }
}

/// Confirms whatever there is to confirm until the stream fails.
async fn confirming(capture: &PostgresCapture, stream: &mut syncline::Opened) -> syncline::Fault {
    loop {
        match super::world::next(&mut stream.changes).await {
            Ok(syncline::Captured::Checkpoint(position)) => {
                let _ = capture.confirm(&stream.stream, position).await;
            }
            Ok(_) => {}
            Err(fault) => return fault,
        }
    }
}

#[tokio::test]
async fn b8_a_connection_that_is_terminated_is_transient() {
    let Some(world) = World::new(BOOKS) else { return };
    let mut stream = opened(&world.capture(&["books"])).await;
    world.run(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '{}'",
        world.database
    ));
    let fault = fault(&mut stream.changes).await;
    assert_eq!(fault.kind(), FaultKind::Transient);
    assert!(fault.message().contains("SQLSTATE 57P01"), "{fault}");
}

/// What is logged while the tests run.
#[derive(Default)]
struct Log(Mutex<String>);

impl tracing::Subscriber for &'static Log {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        self.0.lock().unwrap().push_str(&format!("{attributes:?}\n"));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        self.0.lock().unwrap().push_str(&format!("{values:?}\n"));
    }

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push_str(&format!("{event:?}\n"));
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

#[tokio::test]
async fn passwords_are_asked_for_and_shown_nowhere() {
    let Some(world) = World::new(BOOKS) else { return };
    let log: &'static Log = Box::leak(Box::default());
    let _guard = tracing::subscriber::set_default(log);
    let (db, port, consumer) = (&world.database, world.cluster.port, world.consumer());
    world.run(&format!(
        "CREATE ROLE {db}_scram LOGIN SUPERUSER PASSWORD 'correct horse';
         SET password_encryption = 'md5'; CREATE ROLE {db}_md5 LOGIN SUPERUSER PASSWORD 'correct horse'"
    ));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let over_tcp =
        |who: &str| Server::new(&format!("host=127.0.0.1 port={port} dbname={db} user={db}_{who}")).unwrap();
    let tries = async |server: &Server| {
        let capture = PostgresCapture::new(server, consumer.clone(), [table("books")]);
        reopened_or(&capture).await
    };
    std::fs::write(&path, "correct horse\n").unwrap();
    let server = over_tcp("scram").password_file(&path);
    let mut stream = tries(&server).await.unwrap();
    world.run("INSERT INTO books VALUES (1, 'one')");
    assert_eq!(told(&mut stream.changes).await.len(), 1);
    drop(stream);
    std::fs::write(&path, "hunter2").unwrap();
    let wrong = over_tcp("scram").password_file(&path);
    let mut seen = format!("{wrong:?} {server:?}");
    for (server, what) in [
        (wrong, "password authentication failed"),
        (over_tcp("scram").password_file("/nowhere/password"), "the password file `/nowhere/password`"),
        (over_tcp("scram"), "password"),
    ] {
        let fault = tries(&server).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
        assert!(fault.message().contains(what), "{fault}");
        seen.push_str(&format!("{fault} {fault:?}"));
    }
    let log = log.0.lock().unwrap().clone();
    assert!(!log.is_empty(), "something was logged");
    for secret in ["correct horse", "hunter2"] {
        assert!(!seen.contains(secret) && !log.contains(secret), "{secret}: {seen} {log}");
    }
}

async fn reopened_or(capture: &PostgresCapture) -> Result<syncline::Opened, syncline::Fault> {
    loop {
        match capture.open().await {
            Err(fault) if fault.message().contains("55006") => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
            result => return result,
        }
    }
}

#[tokio::test]
async fn connections_are_encrypted_and_certificates_are_verified() {
    let Some(world) = World::alone("", BOOKS) else { return };
    let at = world.cluster.data();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(&at).output();
        output.is_ok_and(|output| output.status.success())
    };
    let made = openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=ca",
    ) && openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=localhost -addext subjectAltName=DNS:localhost",
    ) && openssl(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt -copy_extensions copy",
    ) && openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout other.key -out other.crt -subj /CN=other",
    );
    assert!(made, "this test needs the program openssl");
    for name in ["server.key", "server.crt"] {
        let contents = std::fs::read_to_string(at.join(name)).unwrap();
        world.cluster.write(name, &contents);
    }
    let port = world.cluster.port;
    world.run("CREATE ROLE secure LOGIN SUPERUSER PASSWORD 'secret'; ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf(); SELECT pg_sleep(0.5)");
    let server = |host: &str, tls: Tls| {
        let database = &world.database;
        Server::new(&format!("host={host} port={port} dbname={database} user=secure password=secret"))
            .unwrap()
            .tls(tls)
    };
    let (ca, other) = (at.join("ca.crt"), at.join("other.crt"));
    for (case, (host, tls, encrypted)) in [
        ("127.0.0.1", Tls::disable(), "false"),
        ("127.0.0.1", Tls::prefer(), "true"),
        ("127.0.0.1", Tls::require(), "true"),
        ("127.0.0.1", Tls::verify_ca(&ca), "true"),
        ("localhost", Tls::verify_full(&ca), "true"),
    ]
    .into_iter()
    .enumerate()
    {
        let named = format!("{host} application_name=case{case}");
        let capture = PostgresCapture::new(&server(&named, tls.clone()), "search", [table("books")]);
        let mut stream = reopened(&capture).await;
        world.run("INSERT INTO books VALUES ((SELECT count(*) FROM books), 'x')");
        assert_eq!(told(&mut stream.changes).await.len(), 1);
        let kinds = format!(
            "SELECT count(*), string_agg(DISTINCT ssl::text, '') FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'case{case}'"
        );
        assert_eq!(
            world.one(&kinds),
            format!("2|{encrypted}"),
            "{tls:?}: that of the stream and one of the pool"
        );
    }
    for (host, tls) in [
        ("127.0.0.1", Tls::verify_full(&ca)),
        ("localhost", Tls::verify_full(&other)),
        ("127.0.0.1", Tls::verify_ca(&other)),
    ] {
        let capture = PostgresCapture::new(&server(host, tls.clone()), "search", [table("books")]);
        let fault = capture.open().await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Fatal, "{tls:?}: {fault}");
        assert!(fault.message().contains("certificate"), "{fault}");
    }
    world.run("ALTER SYSTEM SET ssl = off; SELECT pg_reload_conf(); SELECT pg_sleep(0.5)");
    let capture = PostgresCapture::new(&server("127.0.0.1", Tls::require()), "search", [table("books")]);
    let fault = capture.open().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    drop(
        reopened(&PostgresCapture::new(&server("127.0.0.1", Tls::prefer()), "search", [table("books")]))
            .await,
    );
}
