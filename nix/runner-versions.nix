# Oldest version of GitHub's runner that GitHub accepts. GitHub wants every release installed within 30
# days, and registers no version below a first minimum:
# https://docs.github.com/en/actions/reference/runners/self-hosted-runners
# A refused runner boots, registers, and ends with verdict `version_refused`.
{
  # GitHub has refused 2.334 and everything before it.
  minimum = "2.335.0";
}
