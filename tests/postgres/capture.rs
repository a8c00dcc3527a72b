use syncline::ports::ChangeCapture;

use super::world::{World, checkpoint, opened, table, told, transaction};

const BOOKS: &str = "CREATE TABLE books(id int PRIMARY KEY, title text)";

#[tokio::test]
async fn b4_changes_carry_both_images_and_each_transaction_ends_in_a_checkpoint() {
    let Some(world) = World::new(BOOKS) else { return };
    world.run("ALTER TABLE books REPLICA IDENTITY FULL; INSERT INTO books VALUES (1, 'before the slot')");
    let capture = world.capture(&["books"]);
    let mut stream = opened(&capture).await;
    let idle = checkpoint(&mut stream.changes).await;

    world.run(
        "BEGIN; INSERT INTO books VALUES (2, 'two'); UPDATE books SET title = 'one' WHERE id = 1; COMMIT",
    );
    let (changes, position) = transaction(&mut stream.changes).await;
    assert!(position > idle, "{position} {idle}");
    assert!(changes.iter().all(|change| change.table == table("books")));
    assert!(changes[0].visibility.is_some() && changes[0].visibility == changes[1].visibility);
    world.run("UPDATE books SET id = 7 WHERE id = 2");
    assert_eq!(
        told(&mut stream.changes).await,
        [r#"+public.books/7 before {"id": 2, "title": "two"} after {"id": 7, "title": "two"}"#]
    );
    world.run("DELETE FROM books WHERE id = 7");
    assert_eq!(told(&mut stream.changes).await, [r#"-public.books/7 before {"id": 7, "title": "two"}"#]);
    let lag = capture.lag().await.unwrap().unwrap();
    assert!((1..1 << 20).contains(&lag), "{lag}");
    capture.confirm(&stream.stream, position).await.unwrap();
}
