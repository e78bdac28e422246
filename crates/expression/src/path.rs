//! The paths of `get(x, 'a.b[0].c', other)`.

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

/// The steps of a path; none when it is not well formed.
pub(crate) fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    let mut rest = path;
    let mut first = true;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let (inside, after) = inside.split_once(']')?;
            let quoted = ['\'', '"'].into_iter().find_map(|q| inside.strip_prefix(q)?.strip_suffix(q));
            steps.push(match quoted {
                Some(name) => Step::Field(name),
                None => Step::Item(inside.parse().ok()?),
            });
            rest = after;
        } else {
            if !first {
                rest = rest.strip_prefix('.')?;
            }
            let len = rest.find(['.', '[']).unwrap_or(rest.len());
            if len == 0 {
                return None;
            }
            steps.push(Step::Field(&rest[..len]));
            rest = &rest[len..];
        }
        first = false;
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::{Step, steps};

    #[test]
    fn paths_are_fields_and_items() {
        use Step::{Field, Item};
        assert_eq!(steps("a.b[0].c"), Some(vec![Field("a"), Field("b"), Item(0), Field("c")]));
        assert_eq!(steps("[2]['x-y']"), Some(vec![Item(2), Field("x-y")]));
        assert_eq!(steps(""), Some(vec![]));
        for wrong in [".a", "a.", "a..b", "a[", "a[x]", "a[0]b", "a[-1]"] {
            assert_eq!(steps(wrong), None, "{wrong}");
        }
    }
}
