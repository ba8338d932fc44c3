//! What packages install beside the program: manual pages and completions, made from the command line's own description.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::out::out;
use crate::args::{Args, CompletionsArgs, ManArgs};

/// Prints what a shell completes commands by.
///
/// # Errors
/// Standard output is closed.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut <Args as clap::CommandFactory>::command(), "wmrelay", &mut text);
    out().write_all(&text)?;
    Ok(())
}

/// Writes the manual pages, one for the program and one for each command, as `wmrelay.1`, `wmrelay-check.1` and so on.
///
/// # Errors
/// A file cannot be written; the text says which.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut command = <Args as clap::CommandFactory>::command();
    command.build();
    write_page(&args.folder, "wmrelay", command.clone())?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("wmrelay-{}", sub.get_name());
        write_page(&args.folder, &name, sub.clone().display_name(name.clone()))?;
    }
    Ok(())
}

fn write_page(folder: &Path, name: &str, command: clap::Command) -> anyhow::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    let file = folder.join(format!("{name}.1"));
    std::fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_page_and_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        man(&ManArgs { folder: folder.path().to_owned() }).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page("wmrelay.1").contains(".TH wmrelay 1"), "{}", page("wmrelay.1"));
        for command in ["serve", "check", "status", "why", "kick", "firewall", "play"] {
            let text = page(&format!("wmrelay-{command}.1"));
            assert!(text.contains(&format!("wmrelay-{command}").replace('-', "\\-")) || text.contains(command), "{text}");
        }
        let mut text = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut <Args as clap::CommandFactory>::command(), "wmrelay", &mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("complete -F _wmrelay") && text.contains("leases"), "{text}");
    }
}
