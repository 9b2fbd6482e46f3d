//! What a build is lent: secrets and agents of ssh.

use std::path::PathBuf;

use rbuild::options::{BuildOptions, ContextSource, SecretSource};
use rbuild_frontend::git_reference::GitReference;

use super::Variables;
use crate::cli::error::UsageError;
use crate::cli::values::pairs;

/// Git over ssh gets the user's agent without being told, as with the reference's clients.
pub(super) fn offer_agent(options: &mut BuildOptions, variables: &Variables) {
    let ContextSource::Url(text) = &options.context else {
        return;
    };
    let is_ssh = matches!(GitReference::parse(text), Ok(Some(git))
        if !git.is_ambiguous && (git.remote.starts_with("ssh://") || !git.remote.contains("://")));
    let agent = variables
        .get("SSH_AUTH_SOCK")
        .filter(|socket| !socket.is_empty());
    if let Some(socket) = agent.filter(|_| is_ssh && options.ssh.is_empty()) {
        options
            .ssh
            .insert("default".to_owned(), PathBuf::from(socket));
    }
}

/// `id=…,src=…|env=…`. With an id only, a variable of that name is taken before a file of that name, as the
/// reference does. Values are never looked at here.
pub(in crate::cli) fn secret(
    text: &str,
    variables: &Variables,
) -> Result<(String, SecretSource), UsageError> {
    const FLAG: &str = "--secret";
    let wrong = |reason: String| {
        UsageError::value(FLAG, text, reason)
            .with_help("for example `id=token,src=token.txt` or `id=token,env=TOKEN`")
    };
    let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
    for (key, value) in pairs(FLAG, text)? {
        match key.as_str() {
            "id" => id = Some(value),
            "src" | "source" => file = Some(value),
            "env" => variable = Some(value),
            "type" if value == "file" || value == "env" => kind = Some(value),
            "type" => return Err(wrong(format!("`{value}` is not a type of secret"))),
            other => return Err(wrong(format!("`{other}` is not an option"))),
        }
    }
    let id = id
        .filter(|id| !id.is_empty())
        .ok_or_else(|| wrong("`id` is missing".to_owned()))?;
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let source = match (file, variable) {
        (Some(_), Some(_)) => return Err(wrong("`src` and `env` exclude each other".to_owned())),
        (Some(path), None) => SecretSource::File(path.into()),
        (None, Some(name)) => SecretSource::Environment(name),
        (None, None)
            if kind.as_deref() == Some("env")
                || (kind.is_none() && variables.contains_key(&id)) =>
        {
            SecretSource::Environment(id.clone())
        }
        (None, None) => SecretSource::File(PathBuf::from(&id)),
    };
    Ok((id, source))
}

pub(in crate::cli) fn ssh(
    text: &str,
    variables: &Variables,
) -> Result<(String, PathBuf), UsageError> {
    const FLAG: &str = "--ssh";
    let (id, path) = text
        .split_once('=')
        .map_or((text, None), |(id, path)| (id, Some(path)));
    if id.is_empty() {
        return Err(UsageError::value(FLAG, text, "the id is empty"));
    }
    match path {
        Some(path) if path.contains(',') => {
            Err(
                UsageError::value(FLAG, text, "only one key can be given for an id")
                    .with_help("add the keys to an agent with ssh-add and pass its socket"),
            )
        }
        Some(path) if !path.is_empty() => Ok((id.to_owned(), PathBuf::from(path))),
        _ => match variables
            .get("SSH_AUTH_SOCK")
            .filter(|socket| !socket.is_empty())
        {
            Some(socket) => Ok((id.to_owned(), PathBuf::from(socket))),
            None => {
                Err(
                    UsageError::value(FLAG, text, "there is no agent: SSH_AUTH_SOCK is not set")
                        .with_help("start one: `eval $(ssh-agent)`, then ssh-add"),
                )
            }
        },
    }
}
