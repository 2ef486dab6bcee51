//! The imports between the folders of `src`, checked against what their faces allow. And the check of how long files are.
//!
//! Each folder of `src` has a face, its `mod.rs`. A line of the face's module comment says what the folder may import, as names of
//! folders or of files in `src`, and another says for people what the folder never does:
//!
//! ```text
//! //! May import: `disk`, `luks2`.
//! //! Never: opens a device.
//! ```
//!
//! Within a folder, files import each other by file, not by way of the face, and not in a circle either.
//!
//! Only what is compiled into the program counts: no comments, no strings, nothing under `#[cfg(test)]`, no `tests.rs`, no folder
//! `tests`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, Lit, Meta, Token, UseTree};

/// The files in `src` that put everything together. They may import everything.
const EXEMPT: [&str; 3] = ["main", "lib", "cli"];

/// One `crate::NAME` in a source file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    /// `NAME`; `*` if the whole crate is imported.
    name: String,
    /// What follows it: a file or an item of the folder `NAME`.
    next: Option<String>,
    line: usize,
}

/// What a face says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Face {
    may_import: BTreeSet<String>,
    /// The line of `May import:`.
    line: usize,
}

/// What a file imports and declares, without what is compiled for tests only.
#[derive(Debug, Default)]
struct Source {
    imports: Vec<Import>,
    /// Modules in files of their own that only tests have.
    test_modules: Vec<String>,
}

/// Whether a `cfg` predicate holds only in tests.
fn holds_only_in_tests(predicate: &Meta) -> bool {
    let parts = |list: &syn::MetaList| {
        list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).into_iter().flatten().collect::<Vec<_>>()
    };
    match predicate {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => parts(list).iter().any(holds_only_in_tests),
        Meta::List(list) if list.path.is_ident("any") => parts(list).iter().all(holds_only_in_tests),
        Meta::List(_) | Meta::NameValue(_) => false,
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .any(|attribute| attribute.parse_args::<Meta>().is_ok_and(|predicate| holds_only_in_tests(&predicate)))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Verbatim(_) | _ => &[],
    }
}

fn attributes_in_impl(item: &syn::ImplItem) -> &[Attribute] {
    match item {
        syn::ImplItem::Const(item) => &item.attrs,
        syn::ImplItem::Fn(item) => &item.attrs,
        syn::ImplItem::Type(item) => &item.attrs,
        syn::ImplItem::Macro(item) => &item.attrs,
        syn::ImplItem::Verbatim(_) | _ => &[],
    }
}

/// Walks through a file and collects what it imports.
struct Collector {
    /// The path of the current module from the root of the crate.
    module: Vec<String>,
    source: Source,
}

impl Collector {
    /// Notes the import that a path makes, if it says where it begins.
    fn note(&mut self, path: &[(String, Span)]) {
        let mut at = 0;
        let mut base = match path.first() {
            Some((first, _)) if first == "crate" => Vec::new(),
            Some((first, _)) if first == "super" || first == "self" => self.module.clone(),
            _ => return,
        };
        while let Some((word, _)) = path.get(at).filter(|(word, _)| ["crate", "super", "self"].contains(&word.as_str()))
        {
            if word == "super" {
                base.pop();
            }
            at += 1;
        }
        let Some((_, span)) = path.get(at) else { return };
        let line = span.start().line;
        let mut full = base.into_iter().chain(path[at..].iter().map(|(word, _)| word.clone()));
        let Some(name) = full.next() else { return };
        self.source.imports.push(Import { name, next: full.next(), line });
    }

    fn note_use(&mut self, tree: &UseTree, before: &[(String, Span)]) {
        let with = |ident: &proc_macro2::Ident| {
            let mut path = before.to_vec();
            path.push((ident.to_string(), ident.span()));
            path
        };
        match tree {
            UseTree::Path(path) => self.note_use(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_use(tree, before)),
            UseTree::Name(name) => self.note(&with(&name.ident)),
            UseTree::Rename(rename) => self.note(&with(&rename.ident)),
            UseTree::Glob(glob) => {
                let mut path = before.to_vec();
                path.push(("*".to_owned(), glob.star_token.spans[0]));
                self.note(&path);
            }
        }
    }

    /// Notes the paths in the arguments of a macro or an attribute, which are no syntax yet.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<(String, Span)> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            if let TokenTree::Punct(punct) = &token
                && punct.as_char() == ':'
                && !path.is_empty()
            {
                colons += 1;
                continue;
            }
            if let TokenTree::Ident(ident) = &token
                && (path.is_empty() || colons == 2)
            {
                path.push((ident.to_string(), ident.span()));
                colons = 0;
                continue;
            }
            if matches!(token, TokenTree::Group(_))
                && colons == 2
                && let Ok(tree) = syn::parse2::<UseTree>(TokenStream::from(token.clone()))
            {
                self.note_use(&tree, &path);
                path.clear();
            }
            self.note(&std::mem::take(&mut path));
            colons = 0;
            match token {
                TokenTree::Group(group) => self.note_tokens(group.stream()),
                TokenTree::Ident(ident) => path.push((ident.to_string(), ident.span())),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        self.note(&path);
    }

    /// serde takes the paths of functions as strings.
    fn note_strings_of_serde(&mut self, attribute: &Attribute) {
        let Meta::List(list) = &attribute.meta else { return };
        let Ok(parts) = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else { return };
        for part in parts {
            if let Meta::NameValue(pair) = part
                && let Expr::Lit(literal) = pair.value
                && let Lit::Str(text) = literal.lit
                && let Ok(path) = text.parse::<syn::Path>()
            {
                self.visit_path(&path);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        } else if let Item::Mod(module) = item
            && module.content.is_none()
        {
            self.source.test_modules.push(module.ident.to_string());
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if !is_for_tests(attributes_in_impl(item)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_for_tests(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_use(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words = path.segments.iter().map(|segment| (segment.ident.to_string(), segment.ident.span()));
        self.note(&words.collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.note_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if attribute.path().is_ident("serde") {
            self.note_strings_of_serde(attribute);
        } else if let Meta::List(list) = &attribute.meta {
            self.note_tokens(list.tokens.clone());
        }
    }

    // who may see an item is no import
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

/// Reads a file that is the module `module` of the crate.
fn read_source(text: &str, module: &[&str]) -> syn::Result<Source> {
    let file = syn::parse_file(text)?;
    let module = module.iter().map(|&name| name.to_owned()).collect();
    let mut collector = Collector { module, source: Source::default() };
    if !is_for_tests(&file.attrs) {
        collector.visit_file(&file);
    }
    Ok(collector.source)
}

/// Reads what a face allows.
fn read_face(text: &str) -> Result<Face, String> {
    let file = syn::parse_file(text).map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    for attribute in file.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        if let Meta::NameValue(pair) = &attribute.meta
            && let Expr::Lit(literal) = &pair.value
            && let Lit::Str(text) = &literal.lit
        {
            lines.push((attribute.pound_token.spans[0].start().line, text.value().trim().to_owned()));
        }
    }
    let first = lines.iter().position(|(_, line)| line.starts_with("May import:"));
    let first =
        first.ok_or("the face has no line '//! May import: `name`, `name`.'; add it, with `nothing` for none")?;
    let last = lines[first..].iter().position(|(_, line)| line.ends_with('.') || line.starts_with("Never:"));
    let last = last.map(|count| first + count).filter(|&last| lines[last].1.ends_with('.'));
    let last = last.ok_or("the list after 'May import:' does not end; end it with a full stop")?;
    if last > first && lines[first + 1..=last].iter().any(|(_, line)| line.starts_with("Never:")) {
        return Err("the list after 'May import:' does not end before 'Never:'; end it with a full stop".to_owned());
    }
    if !lines.iter().any(|(_, line)| line.starts_with("Never: ")) {
        return Err("the face has no line '//! Never: '; say what this folder never does".to_owned());
    }
    let list = lines[first..=last].iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join(" ");
    let list = list.trim_start_matches("May import:").trim_end_matches('.').trim();
    let mut face = Face { may_import: BTreeSet::new(), line: lines[first].0 };
    if list == "nothing" || list == "`nothing`" {
        return Ok(face);
    }
    for name in list.split(',').map(str::trim) {
        let inner = name.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let inner = inner.ok_or_else(|| format!("'{name}' is not a name in backticks; expected '`name`, `name`.'"))?;
        face.may_import.insert(inner.to_owned());
    }
    Ok(face)
}

/// The modules of `src`: its folders, and its files beside them.
#[derive(Debug, Default)]
struct Tree {
    folders: BTreeMap<String, Vec<PathBuf>>,
    leaves: BTreeMap<String, PathBuf>,
    /// Files in `src` that are exempt.
    others: BTreeSet<String>,
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The files of a folder, without those that are named as tests.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && stem(&path) != "tests" {
            found.extend(files_of(&path));
        } else if is_rust(&path) && stem(&path) != "tests" {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read_tree(src: &Path) -> Tree {
    let mut tree = Tree::default();
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let name = stem(&path);
        if path.is_dir() {
            // a folder with tests only belongs to the file beside it
            let files = files_of(&path);
            if !files.is_empty() {
                tree.folders.insert(name, files);
            }
        } else if is_rust(&path) && EXEMPT.contains(&name.as_str()) {
            tree.others.insert(name);
        } else if is_rust(&path) {
            tree.leaves.insert(name, path);
        }
    }
    tree
}

/// The path of a file's module: `["plan", "grow"]` for `src/plan/grow.rs`, `["plan"]` for its face.
fn module_of(src: &Path, file: &Path) -> Vec<String> {
    let path = file.strip_prefix(src).unwrap().with_extension("");
    let mut names: Vec<String> = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    names.pop_if(|name| name == "mod");
    names
}

/// The path of a file in messages: `src/plan/grow.rs`.
fn shown(src: &Path, file: &Path) -> String {
    Path::new("src").join(file.strip_prefix(src).unwrap()).display().to_string()
}

/// A module, what it imports, and the first place where it does so.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// Finds one circle: the modules in it, the first one at the end again.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn walk<'a>(
        graph: &'a Graph,
        name: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(at) = way.iter().position(|&before| before == name) {
            return Some(way[at..].iter().chain([&name]).map(|&name| name.to_owned()).collect());
        }
        if done.contains(name) {
            return None;
        }
        way.push(name);
        let found = graph.get(name).into_iter().flatten().find_map(|(next, _)| walk(graph, next, way, done));
        way.pop();
        done.insert(name);
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|name| walk(graph, name, &mut Vec::new(), &mut done))
}

/// Reads the files of one module. The imports come with the file that has them.
fn imports_of(src: &Path, files: &[PathBuf], problems: &mut Vec<String>) -> Vec<(PathBuf, Import)> {
    let mut sources = Vec::new();
    let mut only_tests = Vec::new();
    for file in files {
        let module = module_of(src, file);
        let names: Vec<&str> = module.iter().map(String::as_str).collect();
        match read_source(&fs::read_to_string(file).unwrap(), &names) {
            Ok(source) => {
                let dir = src.join(module.join("/"));
                only_tests.extend(source.test_modules.iter().map(|name| dir.join(name)));
                sources.push((file, source));
            }
            Err(error) => problems.push(format!("{}:{}: {error}", shown(src, file), error.span().start().line)),
        }
    }
    sources
        .retain(|(file, _)| !only_tests.iter().any(|dir| file.starts_with(dir) || **file == dir.with_extension("rs")));
    sources
        .into_iter()
        .flat_map(|(file, source)| source.imports.into_iter().map(move |import| (file.clone(), import)))
        .collect()
}

fn listed(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Checks the imports of one module and enters them into the graph. Returns what it imports.
fn check_module(
    src: &Path,
    (name, files): (&str, &[PathBuf]),
    (allowed, why): (&BTreeSet<String>, &str),
    graph: &mut Graph,
    problems: &mut Vec<String>,
) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (file, import) in imports_of(src, files, problems) {
        // one report for each file and name is enough
        if import.name == name || !seen.insert((file.clone(), import.name.clone())) {
            continue;
        }
        let place = format!("{}:{}", shown(src, &file), import.line);
        if !allowed.contains(&import.name) {
            problems.push(format!("{place}: imports `{}`; {why} {}", import.name, listed(allowed)));
        }
        graph.entry(name.to_owned()).or_default().entry(import.name.clone()).or_insert(place);
        used.insert(import.name);
    }
    used
}

/// Checks that the files of a folder import each other by file, and in no circle.
fn check_files(src: &Path, tree: &Tree, name: &str, problems: &mut Vec<String>) {
    let own = |file: &Path| module_of(src, file).get(1).cloned();
    let siblings: BTreeSet<String> = tree.folders[name].iter().filter_map(|file| own(file)).collect();
    let mut graph = Graph::new();
    for (file, import) in imports_of(src, &tree.folders[name], &mut Vec::new()) {
        let (Some(from), Some(to)) = (own(&file), import.next) else { continue };
        let place = format!("{}:{}", shown(src, &file), import.line);
        if import.name != name || from == to {
            continue;
        }
        if siblings.contains(&to) {
            graph.entry(from).or_default().entry(to).or_insert(place);
        } else {
            problems.push(format!("{place}: imports `{to}` by way of src/{name}/mod.rs; name the file that has it"));
        }
    }
    if let Some(circle) = circle(&graph) {
        let steps = circle.windows(2).map(|step| format!("{} imports {}", graph[&step[0]][&step[1]], step[1]));
        let steps = steps.collect::<Vec<_>>().join(", ");
        problems
            .push(format!("the files of src/{name} import each other in a circle: {} ({steps})", circle.join(" -> ")));
    }
}

fn check_folder(src: &Path, tree: &Tree, name: &str, graph: &mut Graph, problems: &mut Vec<String>) {
    let path = src.join(name).join("mod.rs");
    let at = shown(src, &path);
    let Ok(text) = fs::read_to_string(&path) else {
        problems.push(format!("{at}: missing; every folder of src has a face that says what it may import"));
        return;
    };
    let face = match read_face(&text) {
        Ok(face) => face,
        Err(problem) => {
            problems.push(format!("{at}: {problem}"));
            return;
        }
    };
    for named in &face.may_import {
        let exists = tree.folders.contains_key(named) || tree.leaves.contains_key(named) || tree.others.contains(named);
        if !exists || named == name {
            problems.push(format!("{at}:{}: allows `{named}`, which is not another folder or file of src", face.line));
        }
    }
    let why = format!("the face src/{name}/mod.rs allows");
    let used = check_module(src, (name, &tree.folders[name]), (&face.may_import, &why), graph, problems);
    for unused in face.may_import.difference(&used) {
        problems.push(format!("{at}:{}: allows `{unused}`, which src/{name} never imports; remove it", face.line));
    }
}

/// Checks all of a `src`. Returns the problems, one line each.
fn check(src: &Path) -> Vec<String> {
    let tree = read_tree(src);
    let mut problems = Vec::new();
    let mut graph = Graph::new();
    for name in tree.folders.keys() {
        check_folder(src, &tree, name, &mut graph, &mut problems);
        check_files(src, &tree, name, &mut problems);
    }
    let leaves: BTreeSet<String> = tree.leaves.keys().cloned().collect();
    for (name, file) in &tree.leaves {
        let files = std::slice::from_ref(file);
        let rule = (&leaves, "a file beside the folders may import only the others:");
        check_module(src, (name, files), rule, &mut graph, &mut problems);
    }
    if let Some(circle) = circle(&graph) {
        let steps = circle.windows(2).map(|step| format!("{} imports {}", graph[&step[0]][&step[1]], step[1]));
        let steps = steps.collect::<Vec<_>>().join(", ");
        problems.push(format!("the imports form a circle: {} ({steps})", circle.join(" -> ")));
    }
    problems
}

#[test]
fn the_folders_of_src_import_only_what_their_faces_allow() {
    let problems = check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Names in backticks that begin the rows of the table of modules, in their order.
fn rows_of_the_page() -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).unwrap();
    let (_, table) = page.split_once("\n## Source\n").unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let names = rows.filter_map(|row| row.strip_prefix("| `src/")?.split('`').next());
    names.map(|name| name.trim_end_matches(".rs").to_owned()).collect()
}

#[test]
fn the_page_lists_each_folder_above_what_it_imports() {
    let rows = rows_of_the_page();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let place = |name: &str| rows.iter().position(|row| row == name);
    for name in read_tree(&src).folders.keys() {
        let at = place(name).unwrap_or_else(|| panic!("docs/architecture.md does not list src/{name}"));
        let face = read_face(&fs::read_to_string(src.join(name).join("mod.rs")).unwrap()).unwrap();
        for below in &face.may_import {
            assert!(place(below) > Some(at), "docs/architecture.md lists src/{name} below `{below}`, which it imports");
        }
    }
}

// The tests of the checker

fn names(source: &str) -> Vec<String> {
    names_in(source, &["here", "file"])
}

/// The other modules that a file of `module` imports.
fn names_in(source: &str, module: &[&str]) -> Vec<String> {
    let imports = read_source(source, module).unwrap().imports.into_iter().map(|import| import.name);
    imports.filter(|name| name != module[0]).collect()
}

#[test]
fn finds_imports_in_use_statements_and_nested_braces() {
    assert_eq!(names("use crate::a::B;"), ["a"]);
    assert_eq!(names("use crate::{a::{B, c::D}, e, f as g};"), ["a", "a", "e", "f"]);
    assert_eq!(names("pub(crate) use crate::a;"), ["a"]);
    assert_eq!(names("fn f() { use crate::{a::b}; }"), ["a"]);
    assert_eq!(names("use {std::fmt, crate::a};"), ["a"]);
    assert_eq!(names("use crate::*;"), ["*"]);
}

#[test]
fn finds_imports_in_paths() {
    assert_eq!(
        names("fn f(x: crate::a::X) -> Vec<crate::b::Y> { crate::c::d::<crate::e::Z>() }"),
        ["a", "b", "c", "e"]
    );
    assert_eq!(names("impl crate::a::T for X {}"), ["a"]);
}

#[test]
fn finds_imports_in_the_arguments_of_macros_and_attributes() {
    assert_eq!(names("fn f() { println!(\"{}\", crate::a::b(&[crate::c::D])) }"), ["a", "c"]);
    assert_eq!(names("macro_rules! m { () => { $crate::a::b() } }"), ["a"]);
    assert_eq!(names("macro_rules! m { () => { use $crate::{a::B, c}; } }"), ["a", "c"]);
    assert_eq!(names("#[arg(value_parser = crate::a::parse)] struct X;"), ["a"]);
    assert_eq!(names("struct X { #[serde(with = \"crate::a\")] x: u8, #[serde(rename = \"b\")] y: u8 }"), ["a"]);
}

#[test]
fn finds_imports_that_climb_to_the_root() {
    assert_eq!(names_in("use super::super::a::B; use super::c;", &["here", "file"]), ["a"]);
    assert_eq!(names_in("use super::a::B; use self::c::D;", &["here"]), ["a"]);
    assert_eq!(names_in("mod inner { use super::super::a; use super::b; }", &["here"]), ["a"]);
}

#[test]
fn tells_the_line() {
    let source = read_source("use std::fmt;\n\nuse crate::{\n    a::B,\n    c::D,\n};\n", &["here"]).unwrap();
    assert_eq!(source.imports.iter().map(|import| import.line).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn ignores_comments_strings_and_visibility() {
    assert!(
        names("/// Like [`crate::a::B`].\n// crate::a::b()\nfn f() -> &'static str { \"crate::a::B\" }").is_empty()
    );
    assert!(names("//! See [crate::a].\npub(crate) struct X; pub(in crate::here) struct Y;").is_empty());
}

#[test]
fn ignores_what_is_compiled_for_tests_only() {
    assert!(names("#[cfg(test)] mod tests { use crate::a; }").is_empty());
    assert!(names("#[cfg(test)] use crate::a;").is_empty());
    assert!(names("#[cfg(test)] impl X { fn f() { crate::a::b() } }").is_empty());
    assert!(names("impl X { #[cfg(test)] fn f() { crate::a::b() } }").is_empty());
    assert!(names("#[cfg(all(test, unix))] fn f() { crate::a::b() }").is_empty());
    assert!(names("#![cfg(test)] use crate::a;").is_empty());
}

#[test]
fn counts_what_is_compiled_for_more_than_tests() {
    assert_eq!(names("#[cfg(any(test, fuzzing))] use crate::a;"), ["a"]);
    assert_eq!(names("#[cfg(not(test))] use crate::a;"), ["a"]);
    assert_eq!(names("#[cfg(feature = \"test\")] use crate::a;"), ["a"]);
}

fn allowed(face: &str) -> Vec<String> {
    read_face(face).unwrap().may_import.into_iter().collect()
}

#[test]
fn reads_faces() {
    assert_eq!(allowed("//! Plans.\n//!\n//! May import: `a`, `b`.\n//! Never: anything else.\n"), ["a", "b"]);
    assert_eq!(allowed("//! May import: `a`,\n//! `b`.\n//! Never: x.\n"), ["a", "b"]);
    assert!(allowed("//! May import: nothing.\n//! Never: x.\n").is_empty());
    assert!(allowed("//! May import: `nothing`.\n//! Never: x.\n").is_empty());
    assert_eq!(read_face("//! Plans.\n//! May import: `a`.\n//! Never: x.\n").unwrap().line, 2);
}

#[test]
fn refuses_incomplete_faces() {
    for (face, expected) in [
        ("//! Plans.\n", "no line '//! May import:"),
        ("//! May import: `a`, `b`\n//! Never: x.\n", "full stop"),
        ("//! May import: `a`\n", "full stop"),
        ("//! May import: a.\n//! Never: x.\n", "'a' is not a name in backticks"),
        ("//! May import: `a`.\n", "no line '//! Never: '"),
    ] {
        let problem = read_face(face).unwrap_err();
        assert!(problem.contains(expected), "{face:?}: {problem}");
    }
}

/// A `src` with these files. A face is made of what it allows and its code.
fn fixture(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn face(allowed: &str, code: &str) -> String {
    format!("//! A folder.\n//!\n//! May import: {allowed}.\n//! Never: anything else.\n\n{code}\n")
}

#[test]
fn accepts_a_tree_whose_faces_are_true() {
    let src = fixture(&[
        ("main.rs", "fn main() { crate::top::run() }"),
        ("lib.rs", "pub mod top; pub mod low; mod error; mod key;"),
        ("error.rs", "use crate::key::Key;"),
        ("key.rs", "pub struct Key; #[cfg(test)] mod tests { use crate::top; }"),
        ("key/tests.rs", "use crate::top;"),
        ("top/mod.rs", &face("`low`, `error`", "mod more; mod other; pub use more::X; #[cfg(test)] mod samples;")),
        ("top/more.rs", "use crate::{low::X, error::E}; use crate::top::other::Y;"),
        ("top/other.rs", "mod inner { use super::Y; } pub struct Y;"),
        ("top/samples.rs", "use crate::key;"),
        ("top/tests.rs", "use crate::key;"),
        ("top/tests/more.rs", "use crate::key;"),
        ("low/mod.rs", &face("nothing", "pub struct X;")),
    ]);
    assert_eq!(check(src.path()), Vec::<String>::new());
}

#[track_caller]
fn assert_problem(files: &[(&str, &str)], expected: &str) {
    let src = fixture(files);
    assert_eq!(check(src.path()), [expected]);
}

#[test]
fn refuses_an_import_that_the_face_does_not_allow() {
    assert_problem(
        &[
            ("top/mod.rs", &face("`mid`", "use crate::mid;")),
            ("top/sub/deep.rs", "\nuse crate::{mid::A, low::{X, Y}};"),
            ("mid/mod.rs", &face("nothing", "")),
            ("low/mod.rs", &face("nothing", "")),
        ],
        "src/top/sub/deep.rs:2: imports `low`; the face src/top/mod.rs allows `mid`",
    );
}

#[test]
fn refuses_files_of_a_folder_that_import_each_other_in_a_circle() {
    assert_problem(
        &[
            ("top/mod.rs", &face("nothing", "mod a; mod b;")),
            ("top/a.rs", "use super::b::B;"),
            ("top/b/deep.rs", "use crate::top::a::A;"),
        ],
        "the files of src/top import each other in a circle: a -> b -> a (src/top/a.rs:1 imports b, src/top/b/deep.rs:1 imports a)",
    );
}

#[test]
fn refuses_an_import_of_a_sibling_by_way_of_the_face() {
    assert_problem(
        &[("top/mod.rs", &face("nothing", "mod a; pub use a::A;")), ("top/a.rs", ""), ("top/b.rs", "use super::A;")],
        "src/top/b.rs:1: imports `A` by way of src/top/mod.rs; name the file that has it",
    );
}

#[test]
fn refuses_an_allowed_import_that_is_never_used() {
    assert_problem(
        &[("top/mod.rs", &face("`low`", "#[cfg(test)] use crate::low;")), ("low/mod.rs", &face("nothing", ""))],
        "src/top/mod.rs:3: allows `low`, which src/top never imports; remove it",
    );
}

#[test]
fn refuses_a_folder_without_a_face() {
    assert_problem(
        &[("top/more.rs", "")],
        "src/top/mod.rs: missing; every folder of src has a face that says what it may import",
    );
}

#[test]
fn refuses_a_name_that_does_not_exist() {
    let src = fixture(&[("top/mod.rs", &face("`lwo`", ""))]);
    assert_eq!(
        check(src.path()),
        [
            "src/top/mod.rs:3: allows `lwo`, which is not another folder or file of src",
            "src/top/mod.rs:3: allows `lwo`, which src/top never imports; remove it",
        ]
    );
}

#[test]
fn names_a_circle_and_where_it_is_closed() {
    assert_problem(
        &[
            ("a/mod.rs", &face("`b`", "use crate::b;")),
            ("b/mod.rs", &face("`c`", "use crate::c;")),
            ("c/mod.rs", &face("`a`", "mod d;")),
            ("c/d.rs", "fn f() { crate::a::g() }"),
        ],
        "the imports form a circle: a -> b -> c -> a \
         (src/a/mod.rs:6 imports b, src/b/mod.rs:6 imports c, src/c/d.rs:1 imports a)",
    );
}

#[test]
fn refuses_a_file_beside_the_folders_that_imports_a_folder() {
    assert_problem(
        &[("error.rs", "use crate::key; use crate::low;"), ("key.rs", ""), ("low/mod.rs", &face("nothing", ""))],
        "src/error.rs:1: imports `low`; a file beside the folders may import only the others: `error`, `key`",
    );
}

#[test]
fn reports_a_file_that_is_not_rust() {
    let src = fixture(&[("low/mod.rs", &face("nothing", "mod more;")), ("low/more.rs", "fn 1() {}")]);
    let problems = check(src.path());
    assert!(matches!(problems.as_slice(), [one] if one.starts_with("src/low/more.rs:1: expected")), "{problems:?}");
}

// The limits of scripts/limits.sh

/// Runs the script on these files. Returns what it printed, and whether it passed.
fn limits(files: &[(&str, &str)]) -> (String, bool) {
    let dir = fixture(files);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/limits.sh");
    let output = Command::new(script).arg("src").current_dir(dir.path()).output().unwrap();
    assert!(output.stdout.is_empty());
    (String::from_utf8(output.stderr).unwrap(), output.status.success())
}

fn lines(count: usize) -> String {
    "const A: u8 = 1;\n".repeat(count)
}

#[test]
fn limits_refuse_a_file_with_over_400_lines_of_code() {
    let (said, passed) = limits(&[("src/long.rs", &lines(401)), ("src/short.rs", &lines(400))]);
    assert_eq!(said, "limits: src/long.rs has 401 lines of code, the limit is 400; split it by noun\n");
    assert!(!passed);
}

#[test]
fn limits_count_neither_blank_lines_nor_comments() {
    let text = "\n// one\n    /// two\n/* three\n\n /* four */ }\n five */\n".repeat(9) + &lines(400);
    assert_eq!(limits(&[("src/lib.rs", &text)]), (String::new(), true));
}

#[test]
fn limits_count_no_tests() {
    let item = "#[cfg(test)]\nimpl X {\n    fn f<A, B>(a: A) -> char {\n        '}'\n    }\n}\n\n#[cfg(test)]\nuse a::{\n    b,\n    c,\n};\n";
    let strings = "    const A: &str = \"}\";\n    const B: &str = r#\"\n}\n\"}\n\"#;\n    // }\n".repeat(99);
    let module = format!("#[cfg(test)]\nmod tests {{\n{strings}}}\n");
    let text = item.to_owned() + &lines(200) + &module + &lines(200);
    assert_eq!(limits(&[("src/lib.rs", &text)]), (String::new(), true));
    // and the code after them counts
    assert!(!limits(&[("src/lib.rs", &(text + "fn f() {}\n"))]).1);
}

#[test]
fn limits_count_no_files_of_tests() {
    let long = lines(500);
    let files = [
        ("src/a/mod.rs", "#[cfg(test)]\nmod samples;\n#[cfg(test)]\npub(crate) mod nodes;\n#[cfg(test)]\nmod tests;\n"),
        ("src/a/tests.rs", &long),
        ("src/a/tests/more.rs", &long),
        ("src/a/samples.rs", &long),
        ("src/a/nodes/mod.rs", &long),
        ("src/a/nodes/one.rs", &long),
    ];
    assert_eq!(limits(&files), (String::new(), true));
    assert!(limits(&[files[0], ("src/a/nodes_of.rs", &long)]).0.starts_with("limits: src/a/nodes_of.rs has 500"));
}
