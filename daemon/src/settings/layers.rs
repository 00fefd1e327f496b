//! How layers that come from elsewhere are kept.

use store::LayerForm;

use super::SettingsError;

/// Reads `worker.oci.layers`.
pub(super) fn form(text: Option<&str>) -> Result<LayerForm, SettingsError> {
    match text {
        None | Some("" | "auto") => Ok(LayerForm::Auto),
        Some("tar") => Ok(LayerForm::Tar),
        Some("folder") => Ok(LayerForm::Folder),
        Some(text) => Err(SettingsError::Value {
            key: "worker.oci.layers",
            message: format!("expected auto, tar or folder, got {text:?}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_kept_as_the_setting_says() {
        let cases = [
            (None, LayerForm::Auto),
            (Some("auto"), LayerForm::Auto),
            (Some("tar"), LayerForm::Tar),
            (Some("folder"), LayerForm::Folder),
        ];
        for (text, layers) in cases {
            assert_eq!(form(text).unwrap(), layers);
        }
        let error = form(Some("erofs")).unwrap_err().to_string();
        assert!(
            error.contains("worker.oci.layers") && error.contains("auto, tar or folder"),
            "{error}"
        );
    }
}
