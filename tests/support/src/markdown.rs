//! What the judges read in Markdown: fenced blocks and tables behind a marker, and sections by heading.
//!
//! A marker is an HTML comment on a line of its own, such as `<!-- test-command -->`: invisible to readers, and it
//! survives rewording. Only the shapes that this project writes are understood.

/// The text of the first fenced block after `<!-- marker -->`, without its fences.
#[must_use]
pub fn fenced_block(text: &str, marker: &str) -> Option<String> {
    let mut lines = after_marker(text, marker)?.skip_while(|line| line.trim().is_empty());
    let fence = lines.next()?;
    if !fence.trim_start().starts_with("```") {
        return None;
    }
    let body: Vec<&str> = lines
        .by_ref()
        .take_while(|line| !line.trim_start().starts_with("```"))
        .collect();
    Some(body.join("\n"))
}

/// All fenced blocks that stand behind markers of this name, in order.
#[must_use]
pub fn fenced_blocks(text: &str, marker: &str) -> Vec<String> {
    let mut rest = text;
    let mut blocks = Vec::new();
    let comment = comment(marker);
    while let Some(index) = rest.find(&comment) {
        blocks.extend(fenced_block(&rest[index..], marker));
        rest = &rest[index + comment.len()..];
    }
    blocks
}

/// The rows of the first table after `<!-- marker -->`, without heading and rule.
#[must_use]
pub fn table(text: &str, marker: &str) -> Option<Vec<Vec<String>>> {
    let mut rows = after_marker(text, marker)?
        .skip_while(|line| line.trim().is_empty())
        .take_while(|line| line.trim_start().starts_with('|'))
        .map(cells);
    rows.next()?;
    rows.next()?
        .iter()
        .all(|cell| is_rule(cell))
        .then_some(())?;
    Some(rows.collect())
}

/// The rows of all tables in a text, without headings and rules, with the number of their line.
#[must_use]
pub fn rows(text: &str) -> Vec<(usize, Vec<String>)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_row = |line: &str| line.trim_start().starts_with('|');
    let rule_below = |index: usize| {
        lines
            .get(index + 1)
            .is_some_and(|line| is_row(line) && cells(line).iter().all(|cell| is_rule(cell)))
    };
    let mut rows = Vec::new();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| is_row(line)) {
        let cells = cells(line);
        if !cells.iter().all(|cell| is_rule(cell)) && !rule_below(index) {
            rows.push((index + 1, cells));
        }
    }
    rows
}

/// The text below the first heading of this name, up to the next heading of its level or above.
#[must_use]
pub fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let mut start = None;
    let mut level = 0;
    let mut offset = 0;
    let mut in_fence = false;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        let depth = line.bytes().take_while(|byte| *byte == b'#').count();
        if depth > 0 && !in_fence {
            match start {
                None if line[depth..].trim() == heading => {
                    start = Some(offset + line.len());
                    level = depth;
                }
                Some(start) if depth <= level => return Some(&text[start..offset]),
                _ => {}
            }
        }
        offset += line.len();
    }
    start.map(|start| &text[start..])
}

fn comment(marker: &str) -> String {
    format!("<!-- {marker} -->")
}

fn after_marker<'a>(text: &'a str, marker: &str) -> Option<std::str::Lines<'a>> {
    let comment = comment(marker);
    let index = text.find(&comment)?;
    Some(text[index + comment.len()..].lines())
}

fn is_rule(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|c| c == '-' || c == ':')
}

/// The cells of one row. A `\|` is a bar inside a cell.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim();
    let inner = line.strip_prefix('|').unwrap_or(line);
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    let mut cells = vec![String::new()];
    let mut escaped = false;
    for c in inner.chars() {
        let last = cells.len() - 1;
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '|' if !escaped => cells.push(String::new()),
            '|' => cells[last].push('|'),
            _ => {
                if escaped {
                    cells[last].push('\\');
                }
                cells[last].push(c);
            }
        }
        escaped = false;
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Top\n\n<!-- run -->\n```sh\ncargo test\n# no heading\n```\n\n<!-- verbs -->\n\n\
                        | verb | help |\n| --- | :-- |\n| `a \\| b` | x |\n| c | |\n\n## Two\ntext\n### Three\n\n# Four\n";

    #[test]
    fn the_block_behind_a_marker_is_taken_without_its_fences() {
        assert_eq!(
            fenced_block(TEXT, "run").as_deref(),
            Some("cargo test\n# no heading")
        );
        assert_eq!(fenced_block(TEXT, "verbs"), None);
        assert_eq!(fenced_block(TEXT, "nothing"), None);
        assert_eq!(fenced_blocks(&TEXT.repeat(2), "run").len(), 2);
    }

    #[test]
    fn the_table_behind_a_marker_is_taken_without_heading_and_rule() {
        assert_eq!(table(TEXT, "verbs").unwrap(), [["`a | b`", "x"], ["c", ""]]);
        assert_eq!(table(TEXT, "run"), None);
    }

    #[test]
    fn all_rows_are_found_with_their_lines() {
        let lines: Vec<usize> = rows(TEXT).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [13, 14]);
    }

    #[test]
    fn a_section_ends_at_the_next_heading_of_its_level() {
        assert_eq!(section(TEXT, "Two"), Some("text\n### Three\n\n"));
        assert_eq!(section(TEXT, "Four"), Some(""));
        assert_eq!(section(TEXT, "no heading"), None);
    }
}
