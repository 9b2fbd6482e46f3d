//! `login`, `logout` and `info REGISTRY`.

use std::io::{self, IsTerminal as _, Read as _};
use std::process::ExitCode;

use rbuild::registry::{
    ClientOptions, RegistryClient, RegistryFlags, RegistrySettings, Secret, registry_name,
};

use super::runtime;
use crate::cli::args::{InfoArgs, LoginArgs, LogoutArgs, RegistryArgs};
use crate::cli::error::UsageError;
use crate::cli::failure::Failure;
use crate::cli::request::{Variables, registries};
use crate::ui;

/// No password is longer; registries' tokens are a few KiB.
const LONGEST_PASSWORD: u64 = 64 << 10;

/// Reading the password failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the password from stdin")]
struct NoPassword(#[source] io::Error);

pub(super) fn login(args: &LoginArgs, variables: &Variables) -> Result<ExitCode, Failure> {
    let registry = registry_name(args.registry.as_deref().unwrap_or_default())
        .map_err(Failure::of_settings)?;
    let (username, password) = credentials(args)?;
    let settings = registries(&args.registries, variables)?;
    // The same flags, and what was just typed before every file.
    let flags = RegistryFlags {
        credentials: Some((username.clone(), password.clone())),
        authfile: args.registries.authfile.clone(),
        verifies_tls: settings.verifies_tls(),
        certificates: args.registries.cert_dir.clone(),
        authorities: settings.authorities().to_vec(),
    };
    let client = RegistryClient::with_settings(
        ClientOptions::default(),
        RegistrySettings::of_machine(variables, flags),
    );
    runtime()?.block_on(async {
        client
            .check_login(&registry)
            .await
            .map_err(Failure::of_registry)?;
        let kept = settings
            .keep_credentials(&registry, &username, &password)
            .await
            .map_err(Failure::of_settings)?;
        ui::print_line(&format!(
            "{registry} took the login; kept in {}",
            kept.place
        ));
        Ok(ExitCode::SUCCESS)
    })
}

fn credentials(args: &LoginArgs) -> Result<(String, Secret), Failure> {
    if args.registries.creds.is_some() {
        return Err(UsageError::Missing {
            flag: "--creds",
            reason: "login takes the user and the password apart",
            help: "`rbuild login -u USER --password-stdin REGISTRY`",
        }
        .into());
    }
    let Some(username) = args.username.clone().filter(|name| !name.is_empty()) else {
        return Err(UsageError::Missing {
            flag: "--username",
            reason: "the user is missing",
            help: "`rbuild login -u USER --password-stdin REGISTRY`",
        }
        .into());
    };
    if let Some(password) = &args.password {
        return Ok((username, Secret::new(password)));
    }
    if !args.password_stdin && io::stdin().is_terminal() {
        return Err(UsageError::Missing {
            flag: "--password-stdin",
            reason: "the password is missing, and it is not asked for on the terminal, which would show it",
            help: "pipe it in: `rbuild login -u USER --password-stdin REGISTRY < FILE`",
        }
        .into());
    }
    let mut text = String::new();
    io::stdin()
        .take(LONGEST_PASSWORD)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(NoPassword(error)))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(UsageError::Missing {
            flag: "--password-stdin",
            reason: "stdin holds no password",
            help: "pipe it in: `rbuild login -u USER --password-stdin REGISTRY < FILE`",
        }
        .into());
    }
    Ok((username, Secret::new(password)))
}

pub(super) fn logout(args: &LogoutArgs, variables: &Variables) -> Result<ExitCode, Failure> {
    let registry = registry_name(args.registry.as_deref().unwrap_or_default())
        .map_err(Failure::of_settings)?;
    let flags = RegistryArgs {
        authfile: args.authfile.clone(),
        ..RegistryArgs::default()
    };
    let settings = registries(&flags, variables)?;
    runtime()?.block_on(async {
        let places = settings
            .forget_credentials(&registry)
            .await
            .map_err(Failure::of_settings)?;
        if places.is_empty() {
            ui::print_line(&format!("{registry}: there was no login to forget"));
        }
        for place in places {
            ui::print_line(&format!("{registry}: forgotten in {}", place.place));
        }
        // A login that another tool keeps elsewhere still counts: who logs out should know. A file that was named and
        // does not exist says nothing.
        if let Ok(Some(still)) = settings.credentials_place(&registry).await {
            ui::print_line(&format!(
                "{registry}: there are still credentials in {still}"
            ));
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub(super) fn info(name: &str, args: &InfoArgs, variables: &Variables) -> Result<(), Failure> {
    let settings = registries(&args.registries, variables)?;
    let decisions = runtime()?
        .block_on(settings.explain(name))
        .map_err(Failure::of_settings)?;
    ui::table::print_decisions(&decisions);
    Ok(())
}
