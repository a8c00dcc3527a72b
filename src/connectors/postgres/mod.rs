//! Changes and documents of a PostgreSQL database.

mod build;
mod capture;
mod definition;
mod documents;
mod error;
mod feed;
mod index;
mod pgoutput;
mod relation;
mod schema;
mod server;
mod slot;
mod snapshot;
mod tls;
mod value;
mod visible;
mod wire;

pub use capture::PostgresCapture;
pub use definition::{IndexDefinition, Related};
pub use documents::PostgresDocuments;
pub use error::PostgresError;
pub(crate) use error::classify;
pub use server::Server;
pub use tls::Tls;
