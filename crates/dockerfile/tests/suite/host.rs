//! A host that answers at once and counts what it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use dockerfile::lower::{
    self, ContextQuery, HostError, ImageQuery, LoadedContext, LowerError, LowerOptions, Lowered,
    MetaResolver, NamedContext, ResolvedImage,
};
use llb::build::State;
use oci::Platform;

/// Every image is there, and nothing else.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// How often a config was asked for.
    pub(crate) images: AtomicUsize,
}

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},
"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"history":[{"created_by":"base"}]}"#;

#[async_trait]
impl MetaResolver for Host {
    async fn image_config(
        &self,
        reference: &str,
        _query: ImageQuery,
    ) -> Result<ResolvedImage, HostError> {
        self.images.fetch_add(1, Ordering::Relaxed);
        Ok(ResolvedImage {
            reference: reference.to_owned(),
            digest: None,
            config: CONFIG.to_vec(),
        })
    }

    fn named_context(
        &self,
        _name: &str,
        _platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>, HostError> {
        Ok(None)
    }

    async fn load_context(
        &self,
        _context: &NamedContext,
        _query: ContextQuery,
    ) -> Result<LoadedContext, HostError> {
        Err(Arc::new(std::io::Error::other("there are no contexts")))
    }

    async fn main_context(&self, _follow_paths: Vec<String>) -> Result<State, HostError> {
        Ok(State::scratch())
    }

    async fn ignore_patterns(&self) -> Result<Vec<String>, HostError> {
        Ok(vec!["*.log".to_owned(), "!keep.log".to_owned()])
    }

    fn is_no_cache(&self, _stage: &str) -> bool {
        false
    }

    async fn source_time(&self, _state: &State, _log_name: &str) -> Result<Option<i64>, HostError> {
        Ok(None)
    }
}

/// Lowers for a target; an empty one is the last stage.
pub(crate) fn lowered(host: &Host, text: &[u8], target: &str) -> Result<Lowered, LowerError> {
    let options = LowerOptions {
        target: target.to_owned(),
        build_platforms: vec![Platform::new("linux", "amd64", "")],
        ..LowerOptions::default()
    };
    futures::executor::block_on(lower::lower(text, options, host, Some(Arc::new(|_| {}))))
}
