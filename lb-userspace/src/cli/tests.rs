use clap::Parser;
use clap::error::ErrorKind;

use super::args::{Cli, Command, ConfirmMode};
use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("lbguard").chain(line.split_whitespace()))
}

#[test]
fn the_tree_is_sound() {
    tree().debug_assert();
}

#[test]
fn apply_takes_everything_that_is_documented() {
    let cli = parse(
        "apply s.toml -m why --canary 10 --confirm auto --confirm-within 5m --detach \
         --force-unsafe --json --root /r",
    )
    .unwrap();
    let Command::Apply(apply) = cli.command else {
        panic!("{:?}", cli.command)
    };
    assert_eq!(apply.why, "why");
    assert_eq!(apply.canary.unwrap().ppm(), 100_000);
    assert_eq!(apply.confirm, ConfirmMode::Auto);
    assert_eq!(apply.confirm_within.unwrap().as_secs(), 300);
    assert!(apply.detach && apply.force_unsafe && cli.global.json);
    assert_eq!(cli.global.root.as_deref(), Some(Path::new("/r")));
}

#[test]
fn apply_without_a_reason_is_a_usage_error_that_names_the_flag() {
    let error = parse("apply s.toml").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
    assert!(error.to_string().contains("-m"), "{error}");
    assert_eq!(refuse(&error), ExitCode::Usage);
}

#[test]
fn mistakes_are_usage_errors_and_help_is_not() {
    for line in [
        "",
        "frobnicate",
        "show",
        "show x",
        "apply s -m w --canary 90",
        "diff 1",
    ] {
        assert_eq!(
            refuse(&parse(line).unwrap_err()),
            ExitCode::Usage,
            "{line:?}"
        );
    }
    for line in ["--help", "apply --help", "--version"] {
        assert_eq!(
            refuse(&parse(line).unwrap_err()),
            ExitCode::Done,
            "{line:?}"
        );
    }
}

#[test]
fn global_flags_stand_before_or_after_the_command() {
    for line in ["--root /r --json status", "status --root /r --json"] {
        let cli = parse(line).unwrap();
        assert!(cli.global.json, "{line}");
        assert_eq!(cli.global.root.as_deref(), Some(Path::new("/r")), "{line}");
    }
}

#[test]
fn decap_takes_prefixes_and_will_not_both_detach_and_set_them() {
    let cli = parse("decap eth0 --source 172.16.0.0/16 --source fd00::/8").unwrap();
    let Command::Decap(decap) = cli.command else {
        panic!()
    };
    assert_eq!(decap.sources.len(), 2);
    assert!(parse("decap eth0 --detach --source 10.0.0.0/8").is_err());
}

#[test]
fn simulate_has_the_documented_next_hop() {
    let cli = parse("simulate --config s.toml --pcap in.pcap").unwrap();
    let Command::Simulate(simulate) = cli.command else {
        panic!()
    };
    assert_eq!(simulate.gateway_mac.0, [2, 0, 0, 0, 0, 0xfe]);
}

#[test]
fn every_command_has_examples_or_is_hidden_and_help_fits_a_terminal() {
    for command in tree().get_subcommands() {
        if command.is_hide_set() {
            continue;
        }
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            after.contains("lbguard"),
            "{}: no example",
            command.get_name()
        );
        assert!(
            after.contains("Exit"),
            "{}: no exit codes",
            command.get_name()
        );
        for line in after.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
        }
    }
}

#[test]
fn flags_win_over_agent_toml_and_relative_flags_mean_the_callers_directory() {
    let cli = parse("--root /r --state-dir here status").unwrap();
    let context = Context::new(&cli.global).unwrap();
    let here = std::env::current_dir().unwrap().join("here");
    assert_eq!(context.paths.state_dir(), here);
    let node = Overrides {
        state_dir: Some("/node".into()),
        run_dir: Some("/node-run".into()),
        ..Overrides::default()
    };
    let paths = context.with_node(&node).unwrap();
    assert_eq!(paths.state_dir(), here);
    assert_eq!(paths.run_dir(), Path::new("/node-run"));
}

#[test]
fn man_pages_and_completions_name_every_shown_command() {
    let dir = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(tree(), dir.path()).unwrap();
    let mut script = Vec::new();
    clap_complete::generate(
        clap_complete::Shell::Bash,
        &mut tree(),
        "lbguard",
        &mut script,
    );
    let script = String::from_utf8(script).unwrap();
    for command in tree().get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = command.get_name();
        assert!(
            dir.path().join(format!("lbguard-{name}.1")).exists(),
            "{name}"
        );
        assert!(script.contains(name), "{name}");
    }
}
