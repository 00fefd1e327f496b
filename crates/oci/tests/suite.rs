//! Names of images, platforms and documents, against recorded answers and hostile inputs.

#[path = "suite/documents.rs"]
mod documents;
#[path = "suite/names.rs"]
mod names;
#[path = "suite/platforms.rs"]
mod platforms;
