use super::*;

/// The words of each command in a short form: variables as `<name>`, quoted ones as `<<name>>`.
fn words(text: &str) -> Vec<Vec<String>> {
    let show = |word: &Word| {
        let parts = word.parts.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Var {
                name,
                quoted: false,
            } => format!("<{name}>"),
            Part::Var { name, quoted: true } => format!("<<{name}>>"),
        });
        parts.collect::<String>()
    };
    let list = parse(text);
    let commands = list.iter().filter_map(|statement| match statement {
        Statement::Command(command) => Some(command.words.iter().map(show).collect()),
        _ => None,
    });
    commands.collect()
}

fn faults(list: &[Statement]) -> Vec<String> {
    let mut found = Vec::new();
    for statement in list {
        match statement {
            Statement::Bad { line, what } => found.push(format!("{line}: {what}")),
            Statement::Command(Command {
                block: Some(block), ..
            }) => found.extend(faults(&block.body)),
            Statement::If {
                arms, otherwise, ..
            } => {
                let bodies = arms.iter().flat_map(|(a, b)| [a, b]).chain([otherwise]);
                found.extend(bodies.flat_map(|body| faults(body)));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn words_and_quotes() {
    let text = "set a='x y'\"$b ${c}\"\\ d$e # comment\n\
                linux /vm#1 root=UUID=x \\\n ro; initrd /i\r\n\
                echo \"a\\\"b\\n\\$\" '' $\"tr\" $ \"${x\" $1 ${?}";
    assert_eq!(
        words(text),
        [
            vec!["set", "a=x y<<b>> <<c>> d<e>"],
            vec!["linux", "/vm#1", "root=UUID=x", "ro"],
            vec!["initrd", "/i"],
            vec!["echo", "a\"b\\n$", "", "tr", "$", "${x", "<1>", "<?>"],
        ]
    );
}

#[test]
fn conditions_nest_and_blocks_belong_to_their_command() {
    let list = parse(
        "if [ a ]; then b; elif c; then\n d\nelse\n if e; then f; fi\nfi\n\
         menuentry 'x' --class y { linux /a\n initrd /b\n}\nfunction f {\n true\n}\n\
         for i in 1 2; do echo $i; done\nwhile true; do a; done",
    );
    assert_eq!(faults(&list), [""; 0]);
    let [
        Statement::If {
            arms, otherwise, ..
        },
        Statement::Command(entry),
        Statement::Function { name, body },
        Statement::For { words, .. },
        Statement::Loop { .. },
    ] = &list[..]
    else {
        panic!("{list:?}");
    };
    assert_eq!((arms.len(), otherwise.len()), (2, 1));
    let block = entry.block.as_ref().unwrap();
    assert_eq!(
        (block.body.len(), block.closed, entry.words.len()),
        (2, true, 4)
    );
    assert_eq!((name.as_str(), body.body.len(), words.len()), ("f", 1, 2));
}

#[test]
fn what_does_not_follow_the_grammar_is_named_and_the_rest_is_read() {
    for (text, fault) in [
        ("}\necho a", "1: `}` without `{`"),
        ("fi\necho a", "1: `fi` in the wrong place"),
        ("if a; then b\n", "1: `fi` is missing"),
        ("echo 'a", "1: a quote is not closed"),
        ("\necho a & b", "2: one of | & < > stands outside of quotes"),
        ("{ echo", "1: `{` without a command"),
        ("function { a; }", "1: `function` without a name and `{`"),
        ("for; do a; done", "1: `for` without a name and `in`"),
    ] {
        let faults = faults(&parse(text));
        assert!(faults.contains(&fault.to_owned()), "{text}: {faults:?}");
    }
    // The block ends the condition that is not closed.
    let list = parse("menuentry a {\n if b; then c\n}\nmenuentry d {\n}\n");
    assert_eq!(list.len(), 2, "{list:?}");
    assert_eq!(faults(&list), ["2: `fi` is missing"]);
}

#[test]
fn depth_has_a_limit() {
    for deep in [
        "if a; then ",
        "menuentry a { ",
        "function f { ",
        "while a; do ",
    ] {
        let list = parse(&deep.repeat(20_000));
        assert!(!list.is_empty());
    }
    let list = parse(&format!("{} x {}", "a { ".repeat(60), "} ".repeat(60)));
    assert!(
        faults(&list)
            .iter()
            .any(|fault| fault.ends_with("too deep"))
    );
}
