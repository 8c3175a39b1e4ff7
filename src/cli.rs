//! The command line. Data goes to stdout, everything else to stderr.
//!
//! Exit status: 0 done, 1 the check failed, 2 it could not run, 3 passed with
//! warnings (`doctor`), 64 wrong usage or configuration.

mod agent;
mod client;
mod conflicts;
mod ddl;
mod doctor;
mod fences;
mod secret;
mod settings;
mod status;
mod topology;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Multi-active replication for MySQL and MariaDB over Kafka
#[derive(Debug, Parser)]
#[command(name = "causeway", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent of a region
    Agent(settings::SettingsArguments),
    /// Check, describe or draw a topology
    #[command(subcommand)]
    Topology(topology::TopologyCommand),
    /// Examine a region before the start: exit status 0 pass, 3 warn, 1 fail, 2 could not run
    Doctor(doctor::DoctorArguments),
    /// Compare the tables of all regions while they are written: exit status 0 equal,
    /// 1 differences, 2 could not run or not to the end
    Verify(verify::VerifyArguments),
    /// Read, check and undo from the conflict log of a region
    #[command(subcommand)]
    Conflicts(conflicts::ConflictsCommand),
    /// List who took a region over from whom, and which records of fenced agents were dropped
    Fences(fences::FencesArguments),
    /// Show what a running agent does: exit status 1 if a part does not do as assigned
    Status(status::StatusArguments),
    /// List or release schema changes that hold a stream
    #[command(subcommand)]
    Ddl(ddl::DdlCommand),
    /// Pause or resume the stream of a region
    #[command(subcommand)]
    Stream(ddl::StreamCommand),
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How a command ended, as its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// The check failed.
    Failed,
    /// The check passed with warnings.
    Warned,
    /// Wrong usage or configuration.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Warned => Self::from(3),
            Exit::Usage => Self::from(64),
        }
    }
}

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let usage = error.use_stderr();
            if let Err(broken) = error.print() {
                tracing::debug!(%broken, "the terminal is gone");
            }
            return if usage { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let ended = match arguments.command {
        Command::Agent(arguments) => agent::run(&arguments),
        Command::Topology(command) => topology::run(&command),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Conflicts(command) => conflicts::run(&command),
        Command::Fences(arguments) => fences::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Ddl(command) => ddl::run(&command),
        Command::Stream(command) => ddl::run_stream(&command),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Prints data. A reader that has read enough is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    printed(text).map(|_| ())
}

/// Prints data, and says whether there still is a reader.
pub(crate) fn printed(text: &str) -> anyhow::Result<bool> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// `2026-01-31 12:00:00`; days to dates after Hinnant, "chrono-compatible low-level date
/// algorithms", 2013.
pub(crate) fn utc(at_us: u64) -> String {
    let seconds = at_us / 1_000_000;
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Prints what is not data.
pub(crate) fn complain(text: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stderr(), "{text}").is_err() {
        tracing::debug!("stderr is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(1_709_210_096_000_000), "2024-02-29 12:34:56");
        assert_eq!(utc(4_102_444_799_000_000), "2099-12-31 23:59:59");
    }
}
