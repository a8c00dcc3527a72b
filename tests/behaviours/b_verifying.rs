//! B17: an index is compared with its source.

use std::time::Duration;

use syncline::Refusal;

use crate::fakes::{Act, World, id, index};
use crate::seconds;

#[tokio::test(start_paused = true)]
async fn b17_an_index_is_compared_with_its_source_beside_live_traffic() {
    let users = index("users");
    let world = World::to_be_seeded(&["users", "books"]);
    for key in 1..=20 {
        world.load("users", key, "name=x");
        world.load("books", key, "title=x");
    }
    world.source.never_end();
    let running = world.engine().start();
    assert!(running.caught_up().await);
    assert_eq!(running.verify(&users).await.unwrap().different, 0);
    let writes = || world.sink.writes().iter().filter(|line| !line.starts_with("flush")).count();
    let written = writes();
    // What no change tells of: a row that is another, one that is gone, and a document that nobody wrote.
    world.load("users", 5, "name=unseen");
    world.sink.wipe_document(id("users", 7));
    world.sink.plant(id("users", 99), "name=ghost");
    world.put("books", 1, "title=z");
    let verified = running.verify(&users).await.unwrap();
    assert_eq!(verified.documents, [id("users", 5), id("users", 7), id("users", 99)]);
    assert_eq!((verified.different, verified.compared), (3, 40));
    world.assert_converged();
    // Nothing else of the index was written.
    assert_eq!(writes(), written + 4);
    assert_eq!(running.verify(&users).await.unwrap().different, 0);
    assert_eq!(world.log.count("rebuild users"), 1);
}

#[tokio::test(start_paused = true)]
async fn b17_a_change_that_the_stream_tells_of_later_is_no_difference() {
    let users = index("users");
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=x");
    world.source.never_end();
    let running = world.engine().start();
    assert!(running.caught_up().await);
    world.load("users", 1, "name=y");
    let (verified, ()) = tokio::join!(running.verify(&users), async {
        seconds(1).await;
        world.put("users", 1, "name=y");
    });
    assert_eq!(verified.unwrap().different, 0);
}

#[tokio::test(start_paused = true)]
async fn b17_what_cannot_be_compared_is_refused() {
    let users = index("users");
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=x");
    world.source.never_end();
    let running = world.engine().start();
    assert!(running.caught_up().await);
    assert_eq!(running.verify(&index("nobody")).await.unwrap_err(), Refusal::UnknownIndex);
    world.sink.with(|state| state.can_verify = false);
    assert_eq!(running.verify(&users).await.unwrap_err(), Refusal::NotComparable);
    world.sink.with(|state| state.can_verify = true);
    // One that is cleared meanwhile is compared no more, and one that is being seeded is not yet.
    world.sink.script.always("compare", Act::Late(Duration::from_secs(5)));
    let (verified, again, reindexed) = tokio::join!(
        running.verify(&users),
        async {
            seconds(1).await;
            running.verify(&users).await
        },
        async {
            seconds(2).await;
            running.reindex(&users).await
        }
    );
    assert_eq!(verified.unwrap_err(), Refusal::Interrupted);
    assert_eq!((again.unwrap_err(), reindexed), (Refusal::Verifying, Ok(())));
    assert_eq!(running.verify(&users).await.unwrap_err(), Refusal::NotSeeded);
    let (verified, _) = tokio::join!(running.verify(&users), running.drain(Duration::ZERO));
    assert_eq!(verified.unwrap_err(), Refusal::Ending);
}

/// Wherever it dies nothing is lost, and the next run finds the index seeded.
#[tokio::test(start_paused = true)]
async fn b17_a_verification_leaves_nothing_behind_where_it_dies() {
    let users = index("users");
    for polls in 1..60 {
        let world = World::to_be_seeded(&["users"]);
        for key in 1..=4 {
            world.load("users", key, "name=x");
        }
        world.engine().run().await.unwrap();
        world.source.never_end();
        let running = world.engine().start();
        assert!(running.caught_up().await);
        world.put("users", 9, "name=y");
        let verify = running.verify(&users);
        let crash = async {
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = verify => {}
            () = crash => {}
        }
        drop(running);
        world.source.end();
        world.engine().run().await.unwrap();
        world.assert_converged();
        assert_eq!(world.log.count("rebuild users"), 1);
    }
}
