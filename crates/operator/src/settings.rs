//! What the operator is told besides the objects.

/// The operator's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The image of our containers, as `registry/holdfast:1.0`.
    pub image: String,
    /// Whether that image was asked for, so that every container has it at once. Otherwise those that are there keep theirs
    /// until something else of them changes.
    pub is_image_said: bool,
    /// When our image is pulled; none leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    /// The Pushgateway that runs push their metrics to; none for none.
    pub pushgateway_url: Option<String>,
    /// How many Jobs run at once in one namespace.
    pub jobs_max: usize,
    /// How many scheduled runs go on at once in the cluster; none for no limit.
    pub runs_max: Option<usize>,
}

impl Settings {
    /// Settings with the defaults, for containers of `image`.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            is_image_said: false,
            image_pull_policy: None,
            pushgateway_url: None,
            jobs_max: 4,
            runs_max: None,
        }
    }

    /// Our image, with another tag where a first-generation `Restic` asks for one: a tag, or a whole image.
    pub(crate) fn image(&self, wanted: Option<&str>) -> String {
        match wanted {
            None | Some("") => self.image.clone(),
            Some(image) if image.contains(['/', ':', '@']) => image.to_owned(),
            Some(tag) => {
                let name = self.image.split_once('@').map_or(self.image.as_str(), |(name, _)| name);
                // A colon before the last slash is that of the registry's port.
                let folder = name.rfind('/').map_or(0, |at| at + 1);
                let end = name[folder..].rfind(':').map_or(name.len(), |at| folder + at);
                format!("{}:{tag}", &name[..end])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_the_image_is_replaced() {
        for (image, wanted, expected) in [
            ("registry:5000/holdfast:1.0", None, "registry:5000/holdfast:1.0"),
            ("registry:5000/holdfast:1.0", Some("1.1"), "registry:5000/holdfast:1.1"),
            ("registry:5000/holdfast", Some("1.1"), "registry:5000/holdfast:1.1"),
            ("holdfast@sha256:aa", Some("1.1"), "holdfast:1.1"),
            ("holdfast:1.0", Some("other/image:2"), "other/image:2"),
        ] {
            assert_eq!(Settings::new(image).image(wanted), expected);
        }
    }
}
