//! What a story shows: scenes, facts and differences; coloured on a terminal, plain elsewhere.

use std::io::{IsTerminal, Write};

use owo_colors::{OwoColorize, Style};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::yaml;

/// Where a story is shown.
pub struct Screen {
    is_interactive: bool,
    is_coloured: bool,
}

impl Screen {
    /// Interactive: every scene waits for Enter.
    pub fn new(is_interactive: bool) -> Screen {
        let is_coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Screen { is_interactive, is_coloured }
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.is_coloured { text.style(style).to_string() } else { text.to_owned() }
    }

    /// Begins a scene.
    pub fn scene(&self, title: &str) -> anyhow::Result<()> {
        if self.is_interactive {
            print!("\n{}", self.paint("press Enter", Style::new().dimmed()));
            std::io::stdout().flush()?;
            std::io::stdin().read_line(&mut String::new())?;
        }
        println!("\n{}", self.paint(&format!("── {title}"), Style::new().bold()));
        Ok(())
    }

    /// A command that a person would type.
    pub fn command(&self, text: &str) {
        println!("{}", self.paint(&format!("$ {text}"), Style::new().cyan()));
    }

    /// A named fact.
    pub fn fact(&self, name: &str, value: &str) {
        println!("  {:<14} {value}", format!("{name}:"));
    }

    /// What changed in an object, as a unified diff of its YAML.
    pub fn diff(&self, name: &str, before: &Value, after: &Value) -> anyhow::Result<()> {
        let (before, after) = (yaml::to_string(before)?, yaml::to_string(after)?);
        if before == after {
            self.fact(name, "unchanged");
            return Ok(());
        }
        println!("  {name}:");
        let diff = TextDiff::from_lines(&before, &after);
        for group in diff.grouped_ops(2) {
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                let line = change.value().trim_end();
                match change.tag() {
                    ChangeTag::Equal => println!("      {line}"),
                    ChangeTag::Insert => {
                        println!("    {}", self.paint(&format!("+ {line}"), Style::new().green()));
                    }
                    ChangeTag::Delete => {
                        println!("    {}", self.paint(&format!("- {line}"), Style::new().red()));
                    }
                }
            }
        }
        Ok(())
    }
}
