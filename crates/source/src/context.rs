//! What a source may use while it works for a build.

use progress::Writer;
use session::Group;

/// The builds that want the source, and where to tell them how it goes.
#[derive(Debug, Clone)]
pub struct Context {
    /// The clients that may answer, in order of preference.
    pub sessions: Group,
    /// Progress of the vertex.
    pub progress: Writer,
}
