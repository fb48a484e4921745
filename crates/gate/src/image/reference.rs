//! Names of images, as docker reads them.

/// Where an image is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) host: String,
    name: String,
    /// A tag or a digest.
    version: String,
}

impl Reference {
    pub(super) fn parse(image: &str) -> Result<Self, String> {
        let image = image.strip_prefix("docker://").unwrap_or(image);
        let (host, rest) = match image.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
            Some(_) => ("docker.io", image.to_owned()),
            None => ("docker.io", format!("library/{image}")),
        };
        let (named, digest) = match rest.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (rest.as_str(), None),
        };
        let (name, tag) = named.split_once(':').unwrap_or((named, "latest"));
        let version = digest.unwrap_or(tag);
        let fine = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        // What has something else there is of another kind, `docker-daemon:name` for example.
        let port = host.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok());
        if fine(host, ".-:")
            && port
            && fine(name, "._-/")
            && !name.contains("..")
            && !name.ends_with('/')
            && fine(tag, "._-")
            && digest.is_none_or(|digest| fine(digest, "._-:+"))
        {
            Ok(Self { host: host.to_owned(), name: name.to_owned(), version: version.to_owned() })
        } else {
            Err("it is no name of an image, as in ghcr.io/owner/name:tag".to_owned())
        }
    }

    /// As docker does it, plain HTTP only for this machine.
    pub(super) fn secure(&self) -> bool {
        let name = self.host.split(':').next().unwrap_or_default();
        let loopback = name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
        !(loopback || name == "localhost")
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.secure() { "https" } else { "http" };
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host };
        format!("{scheme}://{host}/v2/{}/manifests/{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let url = |image| Reference::parse(image).unwrap().url();
        assert_eq!(url("nginx"), "https://registry-1.docker.io/v2/library/nginx/manifests/latest");
        assert_eq!(url("docker://a/b:1"), "https://registry-1.docker.io/v2/a/b/manifests/1");
        assert_eq!(url("ghcr.io/o/n:t@sha256:0a"), "https://ghcr.io/v2/o/n/manifests/sha256:0a");
        assert_eq!(url("localhost:5000/n"), "http://localhost:5000/v2/n/manifests/latest");
        assert_eq!(url("127.evil.example/n"), "https://127.evil.example/v2/n/manifests/latest");
    }

    #[test]
    fn other_names_are_refused() {
        for image in ["", "ghcr.io/", "ghcr.io/a b", "ghcr.io/../x", "ghcr.io/a?b", "u@ghcr.io/a/b"] {
            assert!(Reference::parse(image).is_err(), "{image}");
        }
    }
}
