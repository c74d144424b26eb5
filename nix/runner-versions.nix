# Which versions of GitHub's runner are known to be refused. GitHub wants every release installed
# within 30 days, and registers none below the first minimum at all:
# https://docs.github.com/en/actions/reference/runners/self-hosted-runners
# A refused runner boots, registers, and ends with verdict `version_refused`.
{
  # 2.334 and everything before it has been refused.
  minimum = "2.335.0";
}
