//! The command line: the first word names the test, further words are `name=value` arguments.

/// Arguments a test may take; `None` where the command line does not say.
pub(crate) struct Arguments {
    pub(crate) iters: Option<u64>,
    pub(crate) seed: Option<u64>,
}

/// Splits a command line into test name and arguments; an error is the word not understood.
pub(crate) fn parse(line: &str) -> (&str, Result<Arguments, &str>) {
    let mut words = line.split_ascii_whitespace();
    let test = words.next().unwrap_or("none");
    let mut arguments = Arguments {
        iters: None,
        seed: None,
    };
    for word in words {
        match word
            .split_once('=')
            .map(|(name, value)| (name, value.parse::<u64>()))
        {
            Some(("iters", Ok(value))) => arguments.iters = Some(value),
            Some(("seed", Ok(value))) => arguments.seed = Some(value),
            Some(_) | None => return (test, Err(word)),
        }
    }
    (test, Ok(arguments))
}
