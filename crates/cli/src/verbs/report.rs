//! `phoenix report`: any report again, from an events file.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;

use phoenix_model::{Event, Logged, SCHEMA_VERSION};
use phoenix_report::{MARKDOWN_LIMIT, Style, Summary, annotations, end, html, json, junit, markdown};

use crate::args::{Format, ReportArgs};
use crate::error::{CommandError, EXIT_ERROR};
use crate::farm;
use crate::talk::{self, Terminal};

/// Runs the verb. The exit code is that of the run the events are from; 1 when they end before it does.
pub(crate) fn report(args: &ReportArgs) -> Result<ExitCode, CommandError> {
    let summary = match (&args.events, &args.reference, &args.shared.ledger) {
        (Some(events), _, _) => read(events)?,
        (None, Some(reference), Some(ledger)) => farm::report(args, reference, ledger)?,
        (None, _, _) => {
            return Err(CommandError::new("there is nothing to report on")
                .hint("`report EVENTS`, or `report --plan REF --ledger URL`"));
        }
    };
    if let Some(file) = &args.html {
        talk::write(file, &html(&summary)).map_err(|error| {
            CommandError::because(format!("cannot write the page {}", file.display()), &error)
        })?;
    }
    let by_name = || args.output.as_deref().and_then(Format::of_name);
    let text = render(&summary, args.format.or_else(by_name).unwrap_or(Format::Terminal))?;
    match &args.output {
        Some(file) => talk::write(file, &text)
            .map_err(|error| CommandError::because("cannot write the report", &error))?,
        None => {
            talk::stdout(&text)?;
        }
    }
    // Where events are lost, what is left of them may say more than the exit code.
    let code = summary.exit_code.unwrap_or(EXIT_ERROR);
    if code == 0 && !summary.is_green() {
        talk::stderr("error: the events do not add up to the run's exit code 0: some are lost\n");
        return Ok(ExitCode::from(EXIT_ERROR));
    }
    Ok(ExitCode::from(code))
}

/// Reads the events of a run.
fn read(events: &Path) -> Result<Summary, CommandError> {
    let shown = events.display().to_string();
    let cannot = |error: &std::io::Error| CommandError::because(format!("cannot read {shown}"), error);
    let reader: Box<dyn Read> = if shown == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(fs_err::File::open(events).map_err(|error| cannot(&error))?)
    };
    let mut summary = Summary::default();
    for (number, line) in (1..).zip(BufReader::new(reader).split(b'\n')) {
        let line = line.map_err(|error| cannot(&error))?;
        match serde_json::from_slice::<Logged>(&line) {
            Ok(logged) => {
                check_version(&logged.event, &shown)?;
                summary.apply(&logged);
            }
            Err(_) if line.trim_ascii().is_empty() => {}
            // The last line of a run that was killed may be cut, and later versions may know of more.
            Err(_) if number > 1 => {
                talk::stderr(&format!("warning: line {number} of {shown} is no event and is passed over\n"));
            }
            Err(error) => {
                return Err(CommandError::because(format!("{shown} is no events file (line {number})"), &error)
                    .hint("`phoenix run --events FILE` writes one; every run's own is in its directory, events.jsonl"));
            }
        }
    }
    Ok(summary)
}

fn check_version(event: &Event, shown: &str) -> Result<(), CommandError> {
    match event {
        Event::RunStarted { schema, .. } if *schema > SCHEMA_VERSION => Err(CommandError::new(format!(
            "{shown} has version {schema} of the events; this phoenix knows versions up to {SCHEMA_VERSION}"
        ))
        .hint("use the version of phoenix that wrote it, or a later one")),
        _ => Ok(()),
    }
}

/// A report in a format.
pub(crate) fn render(summary: &Summary, format: Format) -> Result<String, CommandError> {
    Ok(match format {
        Format::Terminal => end(summary, Style { colour: Terminal::stdout_colour() }),
        Format::Json => {
            let text = serde_json::to_string_pretty(&json(summary))
                .map_err(|error| CommandError::because("cannot write the report", &error))?;
            format!("{text}\n")
        }
        Format::Junit => {
            junit(summary).map_err(|error| CommandError::because("cannot write the report", &error))?
        }
        Format::Markdown => markdown(summary, MARKDOWN_LIMIT),
        Format::Html => html(summary),
        Format::Github => annotations(summary)
            .iter()
            .map(|annotation| phoenix_github::error(&annotation.title, &annotation.text))
            .collect(),
    })
}
