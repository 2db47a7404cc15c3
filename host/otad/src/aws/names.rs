//! ARNs: how AWS names what lies where.

/// Where an account's things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// Such as `eu-west-1`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

impl Place {
    /// A place whose partition follows from the region.
    #[must_use]
    pub fn of(region: &str, account: &str) -> Self {
        let partition = if region.starts_with("cn-") {
            "aws-cn"
        } else if region.starts_with("us-gov-") {
            "aws-us-gov"
        } else {
            "aws"
        };
        Self {
            partition: partition.to_owned(),
            region: region.to_owned(),
            account: account.to_owned(),
        }
    }

    fn arn(&self, service: &str, region: &str, rest: &str) -> String {
        format!(
            "arn:{}:{service}:{region}:{}:{rest}",
            self.partition, self.account
        )
    }

    /// A thing.
    #[must_use]
    pub fn thing(&self, name: &str) -> String {
        self.arn("iot", &self.region, &format!("thing/{name}"))
    }

    /// A thing group.
    #[must_use]
    pub fn group(&self, name: &str) -> String {
        self.arn("iot", &self.region, &format!("thinggroup/{name}"))
    }

    /// A role without a path, which only AWS knows; an ARN stays as it is.
    #[must_use]
    pub fn role(&self, role: &str) -> String {
        match is_arn(role) {
            true => role.to_owned(),
            false => self.arn("iam", "", &format!("role/{role}")),
        }
    }

    /// A certificate of Certificate Manager; an ARN stays as it is.
    #[must_use]
    pub fn certificate(&self, id: &str) -> String {
        match is_arn(id) {
            true => id.to_owned(),
            false => self.arn("acm", &self.region, &format!("certificate/{id}")),
        }
    }
}

/// Whether a name is an ARN already.
#[must_use]
pub fn is_arn(text: &str) -> bool {
    text.starts_with("arn:")
}

/// Whether an account may be called so.
#[must_use]
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a region may be called so, such as `eu-west-1`: its name goes into host names.
#[must_use]
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() >= 3
        && parts.iter().all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
        && parts
            .last()
            .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_their_partition() {
        let place = Place::of("us-east-1", "123456789012");
        assert_eq!(
            place.thing("pump-1"),
            "arn:aws:iot:us-east-1:123456789012:thing/pump-1"
        );
        assert_eq!(
            place.group("pumps"),
            "arn:aws:iot:us-east-1:123456789012:thinggroup/pumps"
        );
        assert_eq!(place.role("ota"), "arn:aws:iam::123456789012:role/ota");
        assert_eq!(place.role("arn:x"), "arn:x");
        assert_eq!(
            place.certificate("0b"),
            "arn:aws:acm:us-east-1:123456789012:certificate/0b"
        );
        let partition = |region| Place::of(region, "1").partition;
        assert_eq!(partition("cn-north-1"), "aws-cn");
        assert_eq!(partition("us-gov-west-1"), "aws-us-gov");
    }

    #[test]
    fn a_slip_of_the_pen_is_no_region_and_no_account() {
        for good in ["eu-west-1", "us-gov-west-1", "ap-southeast-2"] {
            assert!(is_region(good), "{good}");
        }
        for bad in [
            "",
            "eu-west",
            "eu_west_1",
            "EU-west-1",
            "eu-west-1a",
            "-a-1",
            "all",
        ] {
            assert!(!is_region(bad), "{bad}");
        }
        assert!(is_account("123456789012"));
        for bad in ["", "12345678901", "1234567890123", "12345678901a"] {
            assert!(!is_account(bad), "{bad}");
        }
    }
}
